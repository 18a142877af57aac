// The one place that holds the kernel's version; CMake, Python and the libraries read it from here. A library serves artifacts
// that were made for its own version or an older one of the same first number.
#ifndef ACWFACE_VERSION_H
#define ACWFACE_VERSION_H

#define ACWFACE_KERNEL_VERSION "1.2.0"

#endif
