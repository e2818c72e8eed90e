// The arguments by which every operator is told its activation.
#pragma once
#include "bias_act/params.h"
#include "common/host.h"

namespace ganops {

// Takes over the name: operators call this before anything that may throw.
ActivationParams parse_activation(StringHandle name, double alpha, double gain, double clamp);

}  // namespace ganops
