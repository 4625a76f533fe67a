#include "instruction_sets.hpp"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace structloss {
namespace {

InstructionSet best() {
  const char* given = std::getenv("STRUCTLOSS_INSTRUCTION_SET");
  const std::string up_to = given == nullptr || *given == '\0' ? "avx512" : given;
  if (up_to != "avx512" && up_to != "avx2" && up_to != "plain")
    throw std::invalid_argument("STRUCTLOSS_INSTRUCTION_SET is '" + up_to + "', expected 'avx512', 'avx2' or 'plain'.");
#if SL_HAS_X86
  __builtin_cpu_init();
  if (up_to == "plain" || !__builtin_cpu_supports("avx2")) return InstructionSet::plain;
  const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return wide && up_to == "avx512" ? InstructionSet::avx512 : InstructionSet::avx2;
#else
  return InstructionSet::plain;
#endif
}

}  // namespace

InstructionSet instruction_set() {
  static const InstructionSet chosen = best();
  return chosen;
}

}  // namespace structloss
