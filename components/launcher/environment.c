/* What the daemon must not take over from whoever starts it. */
#define _GNU_SOURCE
#include "launcher.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * node(1) and libuv have options in the environment that load code, open a debugger or write files. So have OpenSSL, whose
 * configuration loads modules, and the C library; of the latter this is what it ignores itself where a program gets more rights
 * (glibc, sysdeps/generic/unsecvars.h). A name that ends in _ stands for all that begin with it. The last ones are said by the
 * launcher alone.
 */
static const char *const unwanted[] = {
    "NODE_", "UV_", "OPENSSL_", "SSL_CERT_", "SSLKEYLOGFILE", "LD_", "MALLOC_", "GLIBC_TUNABLES", "GCONV_PATH", "GETCONF_DIR",
    "HOSTALIASES", "LOCALDOMAIN", "LOCPATH", "NIS_PATH", "NLSPATH", "RES_OPTIONS", "RESOLV_HOST_CONF", "TZDIR",
    "K8S_ARTIFACT", "K8S_HANGUP_IGNORED", "K8S_LAUNCHER", "K8S_NOTIFY_FD", "K8S_PAYLOAD_DIR",
};

static bool is_unwanted(const char *variable) {
  for (size_t i = 0; i < sizeof unwanted / sizeof *unwanted; i++) {
    size_t length = strlen(unwanted[i]);
    bool whole = unwanted[i][length - 1] != '_';
    if (strncmp(variable, unwanted[i], length) == 0 && (!whole || variable[length] == '='))
      return true;
  }
  return false;
}

/* The one thing of Node's that is asked for by a name of ours: where the daemon writes which of its lines it ran, for tests. */
static void pass_coverage(void) {
  const char *directory = getenv("K8S_COVERAGE_DIR");
  if (directory != NULL && directory[0] == '/')
    setenv("NODE_V8_COVERAGE", directory, 1);
}

void clean_environment(void) {
  char **kept = environ;
  for (char **variable = environ; variable != NULL && *variable != NULL; variable++)
    if (!is_unwanted(*variable))
      *kept++ = *variable;
  if (kept != NULL)
    *kept = NULL;
  pass_coverage();
}

/*
 * A token in the arguments is there for every user of the machine to read (ps). What runs from here on has it in its environment, which
 * root alone can read, and which a flag wins over. One without a value is left to whoever says what is wrong with it.
 */
void hide_token(int *argc, char **argv) {
  static const char flag[] = "--token";
  int kept = 1;
  bool ended = false, hidden = false;
  for (int i = 1; i < *argc; i++) {
    const char *value = NULL;
    bool separate = false;
    ended = ended || strcmp(argv[i], "--") == 0;
    if (!ended && strncmp(argv[i], "--token=", sizeof flag) == 0) {
      value = argv[i] + sizeof flag;
    } else if (!ended && strcmp(argv[i], flag) == 0 && i + 1 < *argc && argv[i + 1][0] != '-') {
      value = argv[i + 1];
      separate = true;
    }
    if (value == NULL || value[0] == '\0') {
      argv[kept++] = argv[i];
      continue;
    }
    setenv("K8S_TOKEN", value, 1);
    hidden = true;
    if (separate)
      i++;
  }
  argv[kept] = NULL;
  *argc = kept;
  if (hidden)
    fputs("k8s: warning: other users of this machine can read --token while it starts; use --token-file or K8S_TOKEN\n", stderr);
}
