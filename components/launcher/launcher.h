/*
 * The launcher is the part of dist/artifacts/k8s that the kernel starts. Behind it in the same file are the payload's
 * sections, each a tar archive in one zstd frame, and a footer that says where they are:
 *
 *   launcher ELF | section 0: the daemon | section 1: node | ... | struct footer
 *
 * It unpacks the sections once per version and then becomes the program that was asked for.
 */
#ifndef LAUNCHER_H
#define LAUNCHER_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { DIGEST_BYTES = 32, SECTIONS_LIMIT = 8, PAYLOAD_ID_DIGITS = 16 };

/* ---- sha256.c ---- */

struct sha256 {
  uint32_t state[8];
  uint64_t length;
  uint8_t block[64];
};

void sha256_init(struct sha256 *hash);
void sha256_update(struct sha256 *hash, const void *data, size_t length);
void sha256_final(struct sha256 *hash, uint8_t digest[DIGEST_BYTES]);
/* The first `digits` hexadecimal digits of a digest, and a NUL. */
void hex(const uint8_t *digest, int digits, char *text);

/* ---- artifact.c ---- */

/* Little-endian, as x86-64 and arm64 are. scripts/pack.ts writes it. */
struct section {
  uint64_t offset, size, unpacked_size;
  uint8_t digest[DIGEST_BYTES];
};

struct footer {
  uint32_t section_count;
  uint32_t reserved;
  struct section sections[SECTIONS_LIMIT];
  uint8_t payload_id[DIGEST_BYTES];
  char magic[16];
};

struct artifact {
  const uint8_t *bytes;
  uid_t owner;
  gid_t group;
  struct footer footer;
  char payload_id[PAYLOAD_ID_DIGITS + 1];
};

enum entry_type { ENTRY_FILE = '0', ENTRY_SYMLINK = '2', ENTRY_DIRECTORY = '5' };

struct entry {
  const char *path;
  enum entry_type type;
  unsigned mode;
  uint64_t size;
  const char *target;
};

/* Receives a section's entries in order. `open` returns a descriptor that the content is written to, or -1 to skip it. */
struct sink {
  int (*open)(void *context, const struct entry *entry);
  void (*close)(void *context, int fd);
  void *context;
};

/* Opens the running file; ends the process with a message when it is cut short. */
struct artifact open_artifact(void);

/* Decodes a section into a sink and checks its digest. Returns NULL, or what is wrong in words. Writing errors are in errno
 * with the message "write". */
const char *decode_section(const struct artifact *artifact, unsigned index, const struct sink *sink);

/* ---- settings.c ---- */

struct settings {
  char data_directory[PATH_MAX];
  /* The configuration file has it in a form that only the daemon reads for sure. */
  bool ask_daemon;
  const char *config_file;
  /* By a flag or in the environment. */
  bool config_named;
  /* Index in argv of kubectl, crictl or ctr; 0 when the file itself is called by that name; -1 for the daemon's commands. */
  int tool_index;
  const char *tool;
};

struct settings read_settings(int argc, char **argv);
void make_absolute(char *path, size_t size);
/* Where the daemon keeps its sockets; the rule of src/config/paths.ts. */
void run_directory(const char *data_directory, char *path, size_t size);
/* What somebody serves while the data directory is removed; the rule of src/control/reset-lock.ts. */
void reset_lock(const char *data_directory, char *path, size_t size);

/* ---- config-file.c ---- */

enum reading { READ_NOTHING, READ_VALUE, READ_UNSURE };

/* The data directory that a file names, as it is written there. */
enum reading data_directory_of_file(const char *path, bool named, char *value, size_t size);

/* ---- environment.c ---- */

/* Removes what would change how Node, its libraries or the C library work. */
void clean_environment(void);
void hide_token(int *argc, char **argv);

/* ---- memory.c ---- */

/* The daemon was run without its files and needs them, or the kernel runs no programs from memory. */
enum { EXIT_PAYLOAD_NEEDED = 100 };

/* Runs the daemon's bundle from memory, and returns its exit code, or that the payload is needed. */
int run_from_memory(const struct artifact *artifact, int argc, char **argv);
/* Lets the daemon's reader tell the data directory of the configuration file. Ends the process where a tool needs to know it and
 * the file cannot be used. */
void ask_data_directory(const struct artifact *artifact, struct settings *settings);

/* node OPTIONS [EXTRA] SCRIPT ARGUMENTS */
char **node_arguments(int argc, char **argv, const char *extra, const char *script);

/* ---- trust.c ---- */

/* What programs are run from must not be another user's to change. Trusted are root, the user who runs this, and whoever the
 * artifact belongs to: they could have put another one there. NULL when nobody else can change what is at a path, or replace it,
 * up to the part that does not exist; else who can, in words that follow the path's name. */
const char *who_changes_path(const struct artifact *artifact, const char *path);
/* The same for all that is below a directory, itself included. */
const char *who_changes_tree(const struct artifact *artifact, const char *directory);

/* ---- unpack.c ---- */

/* The unpacked payload's directory when there is one that is whole and that no other user can change. */
bool find_payload(const struct artifact *artifact, const char *data_directory, char *path, size_t size);
/* Unpacks unless another process just did, and removes other versions if it is to be alone; ends the process with a message when
 * it cannot. */
void unpack_payload(const struct artifact *artifact, const char *data_directory, bool alone, char *path, size_t size);
/* Marks a payload that has long been written as safe against a power cut. */
void settle_payload(const char *path);

/* ---- launcher.c ---- */

/* Prints "k8s: cannot ..." and exits with 1. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* snprintf that fails on a path that is too long. */
void format_path(char *path, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
