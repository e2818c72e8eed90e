// The activation of n elements, for kernels that end in one. Included once per instruction set: see common/isa.h.
namespace ganops::GANOPS_ISA {

// y[i] from x[i], dy[i] (null for order 0) and the bias, which is one value, or one per element where b is not null.
// x and y may be the same.
template <class C>
using BiasActBlock = void (*)(const C* x, const C* dy, const C* b, C bias, C* y, int64_t n, const ActivationParams& p);

template <class C>
BiasActBlock<C> bias_act_block(const ActivationParams& p);

}  // namespace ganops::GANOPS_ISA
