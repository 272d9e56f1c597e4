/*
 * The data directory in a configuration file. YAML has many ways to write one thing, and the daemon's reader is the one that
 * counts. This one takes what people write: one setting a line at the margin, plain or quoted, and lists of such values. Of
 * anything else it says that it is not sure, and the launcher asks the daemon.
 */
#define _GNU_SOURCE
#include "launcher.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* As in src/config/table/file.ts. */
enum { FILE_LIMIT_BYTES = 1 << 20 };

static const char data_directory_key[] = "data-dir";

struct span {
  const char *start, *end;
};

/* A file's text; NULL with errno when it cannot be read, EINVAL for what is no configuration file. */
static char *read_text(const char *path, size_t *length) {
  struct stat status;
  /* A named pipe would wait for its writer without O_NONBLOCK. */
  int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0)
    return NULL;
  char *text = NULL;
  if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size <= FILE_LIMIT_BYTES)
    text = malloc((size_t)status.st_size + 1);
  ssize_t read_bytes = text == NULL ? -1 : read(fd, text, (size_t)status.st_size);
  close(fd);
  if (read_bytes < 0) {
    free(text);
    errno = EINVAL;
    return NULL;
  }
  *length = (size_t)read_bytes;
  return text;
}

static const char *skip_blanks(struct span text) {
  while (text.start < text.end && *text.start == ' ')
    text.start++;
  return text.start;
}

static bool all(struct span text, bool (*allowed)(char)) {
  while (text.start < text.end)
    if (!allowed(*text.start++))
      return false;
  return true;
}

static bool is_printable(char c) { return c >= ' ' && c <= '~'; }
static bool in_comment(char c) { return is_printable(c) || c == '\t' || (c & 0x80) != 0; }
static bool in_key(char c) { return isalnum((unsigned char)c) || c == '-'; }
static bool in_flow_list(char c) { return isalnum((unsigned char)c) || strchr(" ,/._=+@~-", c) != NULL; }

/* Nothing, or a comment, which a blank separates from what is before it. */
static bool is_rest(struct span rest) {
  const char *text = skip_blanks(rest);
  return text == rest.end || (*text == '#' && text > rest.start && all((struct span){text, rest.end}, in_comment));
}

static bool quoted_scalar(struct span line, struct span *value) {
  const char *start = line.start + 1, *end = memchr(start, *line.start, (size_t)(line.end - start));
  if (end == NULL || !all((struct span){start, end}, is_printable) || memchr(start, '\\', (size_t)(end - start)) != NULL)
    return false;
  *value = (struct span){start, end};
  /* Two single quotes within single ones mean one. */
  return is_rest((struct span){end + 1, line.end});
}

static bool plain_scalar(struct span line, struct span *value) {
  const char *end = line.start;
  if (!isalnum((unsigned char)*end) && strchr("/.", *end) == NULL)
    return false;
  while (end < line.end && is_printable(*end) && *end != '\\' && !(*end == '#' && end[-1] == ' ')) {
    /* A colon like that begins another value. */
    if (*end == ':' && (end + 1 == line.end || end[1] == ' '))
      return false;
    end++;
  }
  struct span rest = {end, line.end};
  while (end[-1] == ' ')
    end--;
  rest.start = end;
  *value = (struct span){line.start, end};
  return is_rest(rest);
}

/* A value that ends on its line. Those of a list in brackets are not told. */
static bool scalar(struct span line, struct span *value) {
  if (line.start == line.end)
    return false;
  if (*line.start == '"' || *line.start == '\'')
    return quoted_scalar(line, value);
  if (*line.start != '[')
    return plain_scalar(line, value);
  const char *end = memchr(line.start, ']', (size_t)(line.end - line.start));
  *value = (struct span){line.start, line.start};
  return end != NULL && all((struct span){line.start + 1, end}, in_flow_list) && is_rest((struct span){end + 1, line.end});
}

enum { NO_LIST = -2, LIST_MAY_START = -1 };

struct state {
  bool started;
  /* How far the items of the present list are from the margin. */
  int list_indent;
  bool found;
  struct span data_directory;
};

/* - VALUE */
static bool read_item(struct state *state, struct span line, const char *text) {
  int indent = (int)(text - line.start);
  struct span value, rest = {text + 1, line.end};
  if (state->list_indent == NO_LIST || (state->list_indent != LIST_MAY_START && state->list_indent != indent))
    return false;
  state->list_indent = indent;
  rest.start = skip_blanks(rest);
  return rest.start > text + 1 && scalar(rest, &value);
}

/* KEY: [VALUE] */
static bool read_entry(struct state *state, struct span line) {
  const char *colon = memchr(line.start, ':', (size_t)(line.end - line.start));
  if (colon == NULL || colon == line.start || !all((struct span){line.start, colon}, in_key) || *line.start == '-')
    return false;
  struct span value = {NULL, NULL}, rest = {colon + 1, line.end};
  bool empty = is_rest(rest);
  rest.start = skip_blanks(rest);
  if (!empty && (rest.start == colon + 1 || !scalar(rest, &value)))
    return false;
  state->list_indent = empty ? LIST_MAY_START : NO_LIST;
  size_t length = sizeof data_directory_key - 1;
  if ((size_t)(colon - line.start) != length || memcmp(line.start, data_directory_key, length) != 0)
    return true;
  bool again = state->found;
  state->found = true;
  state->data_directory = value;
  return !again && value.end > value.start;
}

static bool read_line(struct state *state, struct span line) {
  const char *text = skip_blanks(line);
  if (text == line.end)
    return true;
  if (*text == '#')
    return all((struct span){text, line.end}, in_comment);
  bool first = !state->started;
  state->started = true;
  if (line.end - line.start >= 3 && memcmp(line.start, "---", 3) == 0)
    return first && is_rest((struct span){line.start + 3, line.end});
  if (*text == '-')
    return read_item(state, line, text);
  return text == line.start && read_entry(state, line);
}

static bool read_lines(struct state *state, struct span text) {
  while (text.start < text.end) {
    const char *newline = memchr(text.start, '\n', (size_t)(text.end - text.start));
    struct span line = {text.start, newline != NULL ? newline : text.end};
    text.start = newline != NULL ? newline + 1 : text.end;
    if (line.end > line.start && line.end[-1] == '\r')
      line.end--;
    if (!read_line(state, line))
      return false;
  }
  return true;
}

enum reading data_directory_of_file(const char *path, bool named, char *value, size_t size) {
  size_t length;
  char *text = read_text(path, &length);
  if (text == NULL) {
    /* An ordinary user may not read the file of a daemon that is not theirs. */
    bool absent = !named && (errno == ENOENT || errno == ENOTDIR || errno == EACCES);
    return absent ? READ_NOTHING : READ_UNSURE;
  }
  struct state state = {.list_indent = NO_LIST};
  enum reading reading = READ_UNSURE;
  /* Without the name, and without a backslash by which a letter can be written otherwise, there is no such setting. */
  if (memmem(text, length, data_directory_key, sizeof data_directory_key - 1) == NULL && memchr(text, '\\', length) == NULL)
    reading = READ_NOTHING;
  else if (read_lines(&state, (struct span){text, text + length}))
    reading = state.found ? READ_VALUE : READ_NOTHING;
  if (reading == READ_VALUE)
    format_path(value, size, "%.*s", (int)(state.data_directory.end - state.data_directory.start), state.data_directory.start);
  free(text);
  return reading;
}
