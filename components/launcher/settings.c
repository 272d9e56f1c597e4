/* Which program is meant, and which data directory: flag, then environment, then configuration file, then default. */
#include "launcher.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const tools[] = {"kubectl", "crictl", "ctr"};
static const char default_data_directory[] = "/var/lib/k8s";
static const char default_config_file[] = "/etc/k8s/config.yaml";
static const char run_root[] = "/run/k8s";

/* The size of sun_path, and what src/config/paths.ts takes for the longest socket below the run directory. */
enum { SOCKET_PATH_BYTES = 108, DIRECTORY_NAME_DIGITS = 16 };
static const char longest_socket[] = "containerd/containerd.sock.ttrpc";

static const char *find_tool(const char *name) {
  for (size_t i = 0; i < sizeof tools / sizeof *tools; i++)
    if (strcmp(name, tools[i]) == 0)
      return tools[i];
  return NULL;
}

/* The value of --name=VALUE or --name VALUE at argv[*index], which is moved past it; NULL when it is another argument. */
static const char *option_value(char **argv, int *index, const char *name) {
  const char *argument = argv[*index];
  size_t length = strlen(name);
  if (strncmp(argument, name, length) != 0)
    return NULL;
  if (argument[length] == '=')
    return argument + length + 1;
  if (argument[length] == '\0' && argv[*index + 1] != NULL)
    return argv[++*index];
  return NULL;
}

static const char *environment(const char *name) {
  const char *value = getenv(name);
  return value != NULL && value[0] != '\0' ? value : NULL;
}

/* `data-dir: VALUE` at the margin of a YAML file, plain or quoted. The daemon reads the file in full and reports what is wrong
 * with it. */
static bool data_directory_of_file(const char *path, char *value, size_t size) {
  FILE *file = fopen(path, "re");
  if (file == NULL)
    return false;
  bool found = false;
  char *line = NULL;
  size_t room = 0;
  while (!found && getline(&line, &room, file) >= 0) {
    char *text = line;
    if (strncmp(text, "data-dir:", 9) != 0)
      continue;
    text += 9;
    text += strspn(text, " \t");
    char quote = *text == '"' || *text == '\'' ? *text++ : '\0';
    char *end = quote ? strchr(text, quote) : strstr(text, " #");
    if (end == NULL)
      end = text + strcspn(text, "\r\n");
    while (!quote && end > text && strchr(" \t\r\n", end[-1]) != NULL)
      end--;
    format_path(value, size, "%.*s", (int)(end - text), text);
    found = end > text;
  }
  free(line);
  fclose(file);
  return found;
}

static void make_absolute(char *path, size_t size) {
  size_t length = strlen(path);
  while (length > 1 && path[length - 1] == '/')
    path[--length] = '\0';
  if (path[0] == '/')
    return;
  char here[PATH_MAX], relative[PATH_MAX];
  if (getcwd(here, sizeof here) == NULL)
    fail("find the current directory, which --data-dir=%s is relative to", path);
  format_path(relative, sizeof relative, "%s", strncmp(path, "./", 2) == 0 ? path + 2 : path);
  format_path(path, size, "%s/%s", here, relative);
}

struct settings read_settings(int argc, char **argv) {
  struct settings settings = {.tool_index = -1};
  const char *data_directory = NULL, *config_file = NULL, *slash = strrchr(argv[0], '/');

  settings.tool = find_tool(slash != NULL ? slash + 1 : argv[0]);
  if (settings.tool != NULL)
    settings.tool_index = 0;
  /* A tool's name counts only where nothing but our two options precedes it, and what follows it is the tool's. */
  bool leading = true;
  for (int i = 1; i < argc && settings.tool == NULL; i++) {
    const char *value;
    if (strcmp(argv[i], "--") == 0)
      break;
    if ((value = option_value(argv, &i, "--data-dir")) != NULL)
      data_directory = value;
    else if ((value = option_value(argv, &i, "--config")) != NULL)
      config_file = value;
    else if (leading) {
      leading = false;
      if ((settings.tool = find_tool(argv[i])) != NULL)
        settings.tool_index = i;
    }
  }

  char *path = settings.data_directory;
  size_t size = sizeof settings.data_directory;
  if (data_directory == NULL)
    data_directory = environment("K8S_DATA_DIR");
  if (config_file == NULL)
    config_file = environment("K8S_CONFIG");
  if (config_file == NULL)
    config_file = default_config_file;
  if (data_directory != NULL && data_directory[0] != '\0')
    format_path(path, size, "%s", data_directory);
  else if (!data_directory_of_file(config_file, path, size))
    format_path(path, size, "%s", default_data_directory);
  make_absolute(path, size);
  return settings;
}

void run_directory(const char *data_directory, char *path, size_t size) {
  format_path(path, size, "%s/run", data_directory);
  if (strlen(path) + 1 + strlen(longest_socket) < SOCKET_PATH_BYTES)
    return;
  struct sha256 hash;
  uint8_t digest[DIGEST_BYTES];
  char name[DIRECTORY_NAME_DIGITS + 1];
  sha256_init(&hash);
  sha256_update(&hash, data_directory, strlen(data_directory));
  sha256_final(&hash, digest);
  hex(digest, DIRECTORY_NAME_DIGITS, name);
  format_path(path, size, "%s/%s", run_root, name);
}
