/* Reads the running file: its footer, and its sections as a stream of tar entries. */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

/*
 * ext4 keeps what is written at a time in folios as large, and Linux since 6.18 maps whole folios: with writes of 1 MiB the
 * mapped parts of the binaries are 30 MB larger, and are reclaimed as one where memory is short.
 */
enum { BLOCK_BYTES = 512, INPUT_STEP_BYTES = 1 << 18, WRITE_STEP_BYTES = 1 << 14 };

static const char footer_magic[16] = "k8s payload v1\n";

/* The payload's id is the digest of those of its sections. */
static bool is_identity(const struct footer *footer) {
  struct sha256 hash;
  uint8_t digest[DIGEST_BYTES];
  sha256_init(&hash);
  for (unsigned i = 0; i < footer->section_count; i++)
    sha256_update(&hash, footer->sections[i].digest, DIGEST_BYTES);
  sha256_final(&hash, digest);
  return memcmp(digest, footer->payload_id, DIGEST_BYTES) == 0;
}

struct artifact open_artifact(void) {
  struct artifact artifact;
  struct stat status;
  int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  if (fd < 0 || fstat(fd, &status) != 0)
    fail("read itself through /proc/self/exe: %s; is /proc mounted?", strerror(errno));

  size_t size = (size_t)status.st_size;
  if (pread(fd, &artifact.footer, sizeof artifact.footer, (off_t)(size - sizeof artifact.footer)) !=
          (ssize_t)sizeof artifact.footer ||
      memcmp(artifact.footer.magic, footer_magic, sizeof footer_magic) != 0)
    fail("find the payload at the end of this file: it is cut short or not an artifact; copy it again");

  const struct footer *footer = &artifact.footer;
  artifact.owner = status.st_uid;
  artifact.group = status.st_gid;
  bool sane = footer->section_count >= 2 && footer->section_count <= SECTIONS_LIMIT;
  for (unsigned i = 0; sane && i < footer->section_count; i++)
    sane = footer->sections[i].offset <= size && footer->sections[i].size <= size - footer->sections[i].offset;
  if (!sane || !is_identity(footer))
    fail("read the payload: this file is damaged; copy it again");

  artifact.bytes = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (artifact.bytes == MAP_FAILED)
    fail("map this file: %s", strerror(errno));
  close(fd);
  hex(footer->payload_id, PAYLOAD_ID_DIGITS, artifact.payload_id);
  return artifact;
}

/* A tar archive that arrives in pieces: header, content, padding, header, ... */
struct tar_reader {
  const struct sink *sink;
  uint8_t header[BLOCK_BYTES];
  size_t header_filled;
  uint64_t content_left, padding_left;
  int fd;
  bool ended;
};

static void finish_entry(struct tar_reader *reader) {
  if (reader->fd >= 0)
    reader->sink->close(reader->sink->context, reader->fd);
  reader->fd = -1;
}

/* Below where it is unpacked to, and no mark of the launcher's there: names that begin with a dot are not archived. */
static bool is_inside(const char *path) {
  for (const char *part = path; part != NULL; part = strchr(part, '/')) {
    part += *part == '/' && part > path;
    if (*part == '\0' || *part == '/' || *part == '.')
      return false;
  }
  return true;
}

static const char *begin_entry(struct tar_reader *reader) {
  char *header = (char *)reader->header;
  if (header[0] == '\0') {
    reader->ended = true;
    return NULL;
  }
  if (memcmp(header + 257, "ustar", 5) != 0)
    return "it holds no tar archive";
  header[99] = header[256] = '\0';
  struct entry entry = {
      .path = header,
      .type = (enum entry_type)header[156],
      .mode = (unsigned)strtoul(header + 100, NULL, 8),
      .size = strtoull(header + 124, NULL, 8),
      .target = header + 157,
  };
  /* Nothing is put where it does not belong, although the digest shows only later whether all this is from our writer. */
  if (!is_inside(entry.path) || (entry.type == ENTRY_SYMLINK && strchr(entry.target, '/') != NULL))
    return "it holds a path that leads out of it";
  reader->content_left = entry.size;
  reader->padding_left = -entry.size % BLOCK_BYTES;
  errno = 0;
  reader->fd = reader->sink->open(reader->sink->context, &entry);
  if (reader->fd < 0 && errno != 0)
    return "write";
  if (entry.size == 0)
    finish_entry(reader);
  return NULL;
}

static size_t smaller(uint64_t left, size_t length) { return left < length ? (size_t)left : length; }

static const char *write_content(int fd, const uint8_t *data, size_t length) {
  while (fd >= 0 && length > 0) {
    ssize_t written = write(fd, data, smaller(length, WRITE_STEP_BYTES));
    if (written < 0 && errno != EINTR)
      return "write";
    if (written > 0)
      data += written, length -= (size_t)written;
  }
  return NULL;
}

static const char *read_tar(struct tar_reader *reader, const uint8_t *data, size_t length) {
  const char *problem = NULL;
  while (length > 0 && !reader->ended && problem == NULL) {
    size_t taken;
    if (reader->content_left > 0) {
      taken = smaller(reader->content_left, length);
      problem = write_content(reader->fd, data, taken);
      reader->content_left -= taken;
      if (reader->content_left == 0)
        finish_entry(reader);
    } else if (reader->padding_left > 0) {
      taken = smaller(reader->padding_left, length);
      reader->padding_left -= taken;
    } else {
      taken = smaller(BLOCK_BYTES - reader->header_filled, length);
      memcpy(reader->header + reader->header_filled, data, taken);
      reader->header_filled += taken;
      if (reader->header_filled == BLOCK_BYTES) {
        reader->header_filled = 0;
        problem = begin_entry(reader);
      }
    }
    data += taken, length -= taken;
  }
  return problem;
}

const char *decode_section(const struct artifact *artifact, unsigned index, const struct sink *sink) {
  const struct section *section = &artifact->footer.sections[index];
  struct tar_reader reader = {.sink = sink, .fd = -1};
  struct sha256 hash;
  size_t room = ZSTD_DStreamOutSize() * 8, state = 1;
  uint8_t *output = malloc(room);
  ZSTD_DCtx *stream = ZSTD_createDCtx();
  const char *problem = output == NULL || stream == NULL ? "there is not enough memory" : NULL;

  sha256_init(&hash);
  for (uint64_t done = 0, unpacked = 0; done < section->size && problem == NULL;) {
    ZSTD_inBuffer input = {artifact->bytes + section->offset + done, smaller(section->size - done, INPUT_STEP_BYTES), 0};
    sha256_update(&hash, input.src, input.size);
    done += input.size;
    /* A full output buffer means that the decoder holds more, even with its input used up. */
    for (bool full = true; problem == NULL && state != 0 && (full || input.pos < input.size);) {
      ZSTD_outBuffer out = {output, room, 0};
      state = ZSTD_decompressStream(stream, &out, &input);
      full = out.pos == room;
      unpacked += out.pos;
      bool damaged = ZSTD_isError(state) || unpacked > section->unpacked_size;
      problem = damaged ? "it is damaged" : read_tar(&reader, output, out.pos);
    }
  }
  int cause = errno;
  finish_entry(&reader);
  ZSTD_freeDCtx(stream);
  free(output);

  uint8_t digest[DIGEST_BYTES];
  sha256_final(&hash, digest);
  if (problem == NULL && (state != 0 || !reader.ended || memcmp(digest, section->digest, DIGEST_BYTES) != 0))
    problem = "it is damaged";
  errno = cause;
  return problem;
}
