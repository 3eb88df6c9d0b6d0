// userfaultfd constants that Debian 12's kernel headers (6.1) do not have yet.
//
// Values are the kernel's user ABI, which does not change; whether the running kernel knows them
// is asked at run time.
#pragma once

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC 0xAA
#define USERFAULTFD_IOC_NEW _IO(USERFAULTFD_IOC, 0x00)
#endif
