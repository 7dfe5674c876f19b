// SPDX-License-Identifier: Apache-2.0
/* Probes of files and links. */
#define _GNU_SOURCE
#include "prober.h"
#include "common.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

void do_cat(const struct line *line)
{
	static char text[TEXT_MAX];
	const char *wanted = strcmp(line->word[0], "grep") ? "" : line->rest;

	if (read_text(word(line, 1), text, sizeof(text)) < 0) {
		report("cat", word(line, 1), false, -1);
		return;
	}
	for (char *row = strtok(text, "\n"); row; row = strtok(NULL, "\n"))
		if (strstr(row, wanted))
			tell("probe: cat %s: %s\n", word(line, 1), row);
}

void do_hex(const struct line *line)
{
	static char data[TEXT_MAX];
	long length = read_text(word(line, 1), data, sizeof(data));
	long wanted = line->count > 2 ? atol(word(line, 2)) : 64;

	if (length < 0) {
		report("hex", word(line, 1), false, -1);
		return;
	}
	tell("probe: hex %s ", word(line, 1));
	for (long i = 0; i < length && i < wanted; i++)
		tell("%02x", (unsigned char)data[i]);
	tell("\n");
}

void do_peek(const struct line *line)
{
	enum { PAGE = 4096 };
	unsigned long at = strtoul(word(line, 2), NULL, 0);
	int fd = open(word(line, 1), O_RDWR | O_CLOEXEC);
	void *page = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, (off_t)(at & ~(PAGE - 1UL)));

	if (page == MAP_FAILED)
		report("peek", word(line, 1), false, -1);
	else
		tell("probe: peek %s %s %08x\n", word(line, 1), word(line, 2),
		       *(volatile unsigned *)((char *)page + (at & (PAGE - 1UL))));
	if (page != MAP_FAILED)
		munmap(page, PAGE);
	if (fd >= 0)
		close(fd);
}

static int visible(const struct dirent *entry)
{
	return *entry->d_name != '.';
}

void do_ls(const struct line *line)
{
	struct dirent **names;
	int count = scandir(word(line, 1), &names, visible, alphasort);

	if (count < 0) {
		report("ls", word(line, 1), false, -1);
		return;
	}
	tell("probe: ls %s:", word(line, 1));
	for (int i = 0; i < count; i++)
		tell(" %s", names[i]->d_name);
	tell("\n");
}

void do_link(const struct line *line)
{
	char target[4096];
	ssize_t length = readlink(word(line, 1), target, sizeof(target) - 1);

	if (length < 0)
		report("link", word(line, 1), false, -1);
	else
		tell("probe: link %s -> %.*s\n", word(line, 1), (int)length, target);
}

void do_stat(const struct line *line)
{
	struct stat node;

	if (stat(word(line, 1), &node) < 0)
		report("stat", word(line, 1), false, -1);
	else
		tell("probe: stat %s %u:%u mode=%o\n", word(line, 1), major(node.st_rdev), minor(node.st_rdev),
		       node.st_mode & 07777);
}

static void put(const struct line *line, int how)
{
	char text[1026];
	int fd = open(word(line, 1), O_WRONLY | O_CREAT | O_CLOEXEC | how, 0600);
	int length = snprintf(text, sizeof(text), "%s\n", line->rest);

	report(word(line, 0), word(line, 1), fd >= 0 && write(fd, text, (size_t)length) == length, -1);
	if (fd >= 0)
		close(fd);
}

void do_write(const struct line *line)
{
	put(line, 0);
}

void do_append(const struct line *line)
{
	put(line, O_APPEND);
}

/* Reserves in portions that get smaller; room, not content, is what runs out. With a number of milliseconds behind the
 * path, whatever others give back in that time is taken, too. */
void do_fill(const struct line *line)
{
	int fd = open(word(line, 1), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	long start = now_ms();
	off_t size = 0;

	for (off_t portion = 16 << 20; fd >= 0 && portion >= 4096; portion /= 2)
		while (fallocate(fd, 0, size, portion) == 0)
			size += portion;
	report("fill", word(line, 1), fd >= 0 && errno == ENOSPC, now_ms() - start);
	for (long until = start + atol(word(line, 2)); fd >= 0 && now_ms() < until;)
		if (fallocate(fd, 0, size, 4096) == 0)
			size += 4096;
		else
			sleep_ms(5);
	if (fd >= 0)
		close(fd);
}
