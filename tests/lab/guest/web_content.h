/* The web site of the guest: which pages, files and downloads it has, how large they are, and every
 * byte of them as a function of a seed and, for pages, of what the account was asked for before.
 *
 * Shared by mkwebfiles.c and webapp.c (C, in the guest) and by the load client (C++), which checks
 * each byte that it receives. Where each size is from says docs/loads.md. Does no input or output.
 */
#ifndef POSTCOPY_LAB_WEB_CONTENT_H_
#define POSTCOPY_LAB_WEB_CONTENT_H_

#include "content.h"

enum {
  LAB_WEB_CLASSES = 4,      /* of files: below 1 KB, to 10 KB, to 100 KB, to 1 MB */
  LAB_WEB_CLASS_FILES = 9,  /* in each class of each directory */
  LAB_WEB_DOWNLOADS = 8,    /* in each directory */
  LAB_WEB_ACCOUNTS = 16384, /* each a page of the web program's memory */
  LAB_WEB_MAX_PAGE_TYPES = 17,
  LAB_WEB_MAX_PAGE_BYTES = 167000
};

enum lab_web_mix { LAB_WEB_BANKING, LAB_WEB_ECOMMERCE, LAB_WEB_SUPPORT, LAB_WEB_MIXES };

/* Bytes of file `file` of class `file_class`, both from 0: SPECweb99's nine sizes a class. */
static inline uint32_t lab_web_file_bytes(uint32_t file_class, uint32_t file) {
  static const uint32_t kTenth[LAB_WEB_CLASSES] = {1024, 10240, 102400, 1024000};
  return (file + 1) * kTenth[file_class] / 10;
}

/* Bytes of download `number`, from 0: five from 105 KB and three from 629 KB. */
static inline uint32_t lab_web_download_bytes(uint32_t number) {
  return number < 5 ? (number + 1) * 104858 : 629146 + (number - 5) * 125829;
}

/* Bytes of a page without what is embedded in it; 0 if the mix has no such page. */
static inline uint32_t lab_web_page_bytes(uint32_t mix, uint32_t type) {
  static const uint32_t kBytes[LAB_WEB_MIXES][LAB_WEB_MAX_PAGE_TYPES] = {
      {4000, 17000, 11000, 15000, 18000, 34000, 22000, 24000, 32000, 29000, 21000, 25000, 13000,
       16000, 46000, 10757, 5458},
      {54000, 167000, 68000, 108000, 22000, 154000, 154000, 154000, 112000, 45000, 17000, 33000,
       23000},
      {51700, 18000, 27500, 52700, 94500, 113300}};
  return mix < LAB_WEB_MIXES && type < LAB_WEB_MAX_PAGE_TYPES ? kBytes[mix][type] : 0;
}

/* A stream of words: word `i` of what has this key. A body is the words in order, the last one cut.
 */
static inline uint64_t lab_web_word(uint64_t key, uint64_t i) {
  return lab_mix64(key + (i + 1) * kLabGolden);
}

/* Keys of different kinds of things of one seed differ; so do those of one kind. */
static inline uint64_t lab_web_key(uint64_t seed, uint64_t kind, uint64_t number) {
  return lab_mix64(lab_mix64(seed + kLabGolden * (kind + 2)) + number);
}
static inline uint64_t lab_web_file_key(uint64_t seed, uint32_t directory, uint32_t file_class,
                                        uint32_t file) {
  return lab_web_key(
      seed, 1, ((uint64_t)directory * LAB_WEB_CLASSES + file_class) * LAB_WEB_CLASS_FILES + file);
}
static inline uint64_t lab_web_download_key(uint64_t seed, uint32_t directory, uint32_t number) {
  return lab_web_key(seed, 2, (uint64_t)directory * LAB_WEB_DOWNLOADS + number);
}

/* The state of an account before its first visit. */
static inline uint64_t lab_web_account_start(uint64_t seed, uint64_t account) {
  return lab_web_key(seed, 3, account);
}
/* The state after a page was asked for; it is the key of that page, too. So a page shows whether
 * the guest remembers all visits before it, in their order. */
static inline uint64_t lab_web_account_next(uint64_t state, uint32_t mix, uint32_t type,
                                            uint64_t visit) {
  return lab_mix64(state + kLabGolden + ((uint64_t)mix << 56 ^ (uint64_t)type << 48 ^ visit));
}

#endif /* POSTCOPY_LAB_WEB_CONTENT_H_ */
