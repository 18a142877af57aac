// The one place that holds the kernel's version; CMake, Python and the libraries read it from here.
#ifndef ACWFACE_VERSION_H
#define ACWFACE_VERSION_H

#define ACWFACE_KERNEL_VERSION "1.1.1"

#endif
