#pragma once

/* The exit code of /volume with these arguments. */
int volume(int count, char **arguments);
