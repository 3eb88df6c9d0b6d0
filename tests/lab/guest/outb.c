/* outb PORT VALUE: writes a byte to an I/O port. For devices that the guest's kernel has no driver for: the
 * ib700 watchdog is two ports. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>

int main(int argc, char** argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: outb PORT VALUE\n");
    return 2;
  }
  const unsigned short port = (unsigned short)strtoul(argv[1], NULL, 0);
  if (ioperm(port, 1, 1) != 0) {
    fprintf(stderr, "outb: port %s: %s\n", argv[1], strerror(errno));
    return 1;
  }
  outb((unsigned char)strtoul(argv[2], NULL, 0), port);
  return 0;
}
