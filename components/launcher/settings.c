/* Which program is meant, and which data directory: flag, then environment, then configuration file, then default. */
#define _GNU_SOURCE
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

/* As path.resolve of Node does: from the current directory, and without looking at what is there. */
void make_absolute(char *path, size_t size) {
  char here[PATH_MAX] = "", joined[PATH_MAX];
  if (path[0] != '/' && getcwd(here, sizeof here) == NULL)
    fail("find the current directory, which %s is relative to", path);
  format_path(joined, sizeof joined, "%s/%s", here, path);
  size_t length = 0;
  char *rest = joined;
  for (char *part; (part = strsep(&rest, "/")) != NULL;) {
    if (part[0] == '\0' || strcmp(part, ".") == 0)
      continue;
    if (strcmp(part, "..") == 0) {
      while (length > 0 && path[--length] != '/')
        ;
      continue;
    }
    if (length + strlen(part) + 2 > size)
      fail("use a path of more than %zu bytes: %.80s...", size - 1, part);
    path[length++] = '/';
    length = (size_t)(stpcpy(path + length, part) - path);
  }
  strcpy(path + length, length == 0 ? "/" : "");
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

  /* The daemon says the same of its own commands. */
  if (settings.tool != NULL && data_directory != NULL && data_directory[0] == '\0')
    fail("use --data-dir: it has no value");
  if (settings.tool != NULL && config_file != NULL && config_file[0] == '\0')
    fail("use --config: it has no value");

  char *path = settings.data_directory;
  size_t size = sizeof settings.data_directory;
  if (data_directory == NULL)
    data_directory = environment("K8S_DATA_DIR");
  if (config_file == NULL)
    config_file = environment("K8S_CONFIG");
  settings.config_named = config_file != NULL;
  settings.config_file = settings.config_named ? config_file : default_config_file;
  format_path(path, size, "%s", default_data_directory);
  if (data_directory != NULL && data_directory[0] != '\0')
    format_path(path, size, "%s", data_directory);
  else
    settings.ask_daemon = data_directory_of_file(settings.config_file, settings.config_named, path, size) == READ_UNSURE;
  make_absolute(path, size);
  return settings;
}

/* A directory's name in places that are not in it. */
static void name_of(const char *directory, char name[DIRECTORY_NAME_DIGITS + 1]) {
  struct sha256 hash;
  uint8_t digest[DIGEST_BYTES];
  sha256_init(&hash);
  sha256_update(&hash, directory, strlen(directory));
  sha256_final(&hash, digest);
  hex(digest, DIRECTORY_NAME_DIGITS, name);
}

void run_directory(const char *data_directory, char *path, size_t size) {
  format_path(path, size, "%s/run", data_directory);
  if (strlen(path) + 1 + strlen(longest_socket) < SOCKET_PATH_BYTES)
    return;
  char name[DIRECTORY_NAME_DIGITS + 1];
  name_of(data_directory, name);
  format_path(path, size, "%s/%s", run_root, name);
}

void reset_lock(const char *data_directory, char *path, size_t size) {
  char real[PATH_MAX], name[DIRECTORY_NAME_DIGITS + 1];
  name_of(realpath(data_directory, real) != NULL ? real : data_directory, name);
  format_path(path, size, "/run/k8s-reset-%s.sock", name);
}
