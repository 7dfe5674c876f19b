// SPDX-License-Identifier: Apache-2.0
/* Probes of device nodes: make them, open them, keep them open. */
#include "prober.h"
#include "common.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

enum { HELD_MAX = 64 };

static struct {
	char path[WORD_MAX];
	int fd;
} held[HELD_MAX];

/* A number, or the major of a driver by its name in /proc/devices. */
static int find_major(const char *name)
{
	static char text[TEXT_MAX];
	char found[WORD_MAX];
	int number;

	if (isdigit((unsigned char)*name))
		return atoi(name);
	if (read_text("/proc/devices", text, sizeof(text)) < 0)
		return -1;
	for (char *row = strtok(text, "\n"); row; row = strtok(NULL, "\n"))
		if (sscanf(row, "%d %255s", &number, found) == 2 && !strcmp(found, name))
			return number;
	errno = ENXIO;
	return -1;
}

void do_node(const struct line *line)
{
	int number = find_major(word(line, 2));

	report("node", word(line, 1),
	       number >= 0 && mknod(word(line, 1), S_IFCHR | 0666, makedev((unsigned)number, (unsigned)atoi(word(line, 3)))) == 0,
	       -1);
}

static int open_timed(const char *verb, const char *path)
{
	long start = now_ms();
	int fd = open(path, O_RDWR | O_CLOEXEC);

	report(verb, path, fd >= 0, now_ms() - start);
	return fd;
}

void do_open(const struct line *line)
{
	int fd = open_timed("open", word(line, 1));

	if (fd >= 0)
		close(fd);
}

void do_hold(const struct line *line)
{
	int fd = open_timed("hold", word(line, 1));

	for (int i = 0; fd >= 0 && i < HELD_MAX; i++)
		if (!*held[i].path) {
			snprintf(held[i].path, sizeof(held[i].path), "%s", word(line, 1));
			held[i].fd = fd;
			return;
		}
}

void do_release(const struct line *line)
{
	for (int i = 0; i < HELD_MAX; i++)
		if (!strcmp(held[i].path, word(line, 1))) {
			*held[i].path = '\0';
			report("release", word(line, 1), close(held[i].fd) == 0, -1);
			return;
		}
	errno = ENOENT;
	report("release", word(line, 1), false, -1);
}

void do_parallel(const struct line *line)
{
	int ok = 0, failed = 0;
	long start = now_ms();

	for (int i = 1; i < line->count; i++)
		if (fork() == 0)
			_exit(open(line->word[i], O_RDWR) < 0);
	for (int status; wait(&status) > 0;)
		status == 0 ? ok++ : failed++;
	tell("probe: parallel ok=%d failed=%d ms=%ld\n", ok, failed, now_ms() - start);
}
