// Names that the GPU library shows.
#pragma once

#if defined(_WIN32)
#define SL_EXPORT extern "C" __declspec(dllexport)
#else
#define SL_EXPORT extern "C" __attribute__((visibility("default")))
#endif
