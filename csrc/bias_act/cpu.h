// The activation of n elements, for kernels that end in one. Included once per instruction set, after bias_act/math.h:
// see common/isa.h.
namespace ganops::GANOPS_ISA {

// block(x, dy, b, bias, y, n) makes y[i] from x[i], dy[i] (null for order 0) and the bias, which is one value, or one
// per element where b is not null. x and y may be the same.
template <class C>
class BiasActBlock {
 public:
  explicit BiasActBlock(const ActivationParams& p);

  void operator()(const C* x, const C* dy, const C* b, C bias, C* y, int64_t n) const {
    function(x, dy, b, bias, y, n, constants);
  }

 private:
  using Function = void (*)(const C*, const C*, const C*, C, C*, int64_t, const ActivationConstants<C>&);

  template <int... act>
  static Function choose(const ActivationParams& p, std::integer_sequence<int, act...>);

  ActivationConstants<C> constants;
  Function function;
};

}  // namespace ganops::GANOPS_ISA
