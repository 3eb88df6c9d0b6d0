/* Compiled, not run: postcopy.h is C99 and can be used from C. */
#include <postcopy/postcopy.h>

int attach_and_detach(void);

int attach_and_detach(void) {
  struct postcopy_attach_options options = {0};
  postcopy_attachment *attachment = NULL;
  options.size = sizeof options;
  options.vm_name = "vm";
  if (postcopy_attach(&options, &attachment) != 0) return 1;
  postcopy_detach(attachment);
  return 0;
}
