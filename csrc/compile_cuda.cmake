# Compiles SOURCES (separated by commas) to LIBRARY with NVCC and says in BUILT for which GPUs, or in PROBLEM why that failed; never an error.
# ARCHITECTURES are numbers such as 80,90 or nothing for the usual ones.
execute_process(COMMAND ${NVCC} --version OUTPUT_VARIABLE about)
string(REGEX MATCH "release ([0-9]+\\.[0-9]+)" found "${about}")
set(version ${CMAKE_MATCH_1})
string(REPLACE "," ";" ARCHITECTURES "${ARCHITECTURES}")
string(REPLACE "," ";" SOURCES "${SOURCES}")
if(NOT ARCHITECTURES)
  set(ARCHITECTURES 80 90)
  if(version VERSION_GREATER_EQUAL 12.8)
    list(APPEND ARCHITECTURES 100)
  endif()
endif()
set(targets "")
foreach(number IN LISTS ARCHITECTURES)
  list(APPEND targets -gencode=arch=compute_${number},code=sm_${number})
endforeach()
# The newest also as PTX, for GPUs that are newer still.
list(GET ARCHITECTURES -1 newest)
list(APPEND targets -gencode=arch=compute_${newest},code=compute_${newest})

# No contraction, as on the CPU: what is exactly zero there must be so here. The targets are compiled side by side.
execute_process(
  COMMAND ${NVCC} -std=c++17 -O3 -fmad=false --expt-relaxed-constexpr --threads=0 -shared -cudart=static
    -Xcompiler=-fPIC,-fvisibility=hidden ${targets} ${SOURCES} -o ${LIBRARY}.new
  RESULT_VARIABLE result OUTPUT_VARIABLE log ERROR_VARIABLE log)
file(REMOVE ${LIBRARY} ${PROBLEM} ${BUILT})
if(result EQUAL 0)
  file(RENAME ${LIBRARY}.new ${LIBRARY})
  list(TRANSFORM ARCHITECTURES REPLACE "^([0-9]+)([0-9][a-z]?)$" "\\1.\\2" OUTPUT_VARIABLE capabilities)
  list(JOIN capabilities ", " capabilities)
  file(WRITE ${BUILT} "by nvcc ${version}, for compute capability ${capabilities} and newer")
else()
  message(WARNING "nvcc could not compile the CUDA kernels; the other backends are not affected.\n${log}")
  string(REGEX MATCH "[^\n]*(error|fatal|unsupported|Unsupported)[^\n]*" line "${log}")
  string(STRIP "${line}" line)
  file(WRITE ${PROBLEM} "nvcc ${version} could not compile them when structloss was installed: ${line}")
endif()
