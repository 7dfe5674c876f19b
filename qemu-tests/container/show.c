/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A container's program that shows what its arguments name, a fact a line: the lines of a file, the names in a folder,
 * how much of a device can be read, and with `env` its environment. Static, so a root needs nothing else.
 *   show /proc/self/cgroup: 0::/
 *   show /dev: null 1:3
 *   show /dev/vdx: block 1048576 bytes
 *   show env: PATH=/usr/bin
 *   show /nothing: ENOENT
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

extern char **environ;

static void show_folder(const char *path)
{
	struct dirent **names;
	int count = scandir(path, &names, NULL, versionsort);

	for (int i = 0; i < count; i++) {
		char full[4096];
		struct stat state;

		if (*names[i]->d_name == '.')
			continue;
		snprintf(full, sizeof(full), "%s/%s", path, names[i]->d_name);
		if (lstat(full, &state) == 0 && (S_ISCHR(state.st_mode) || S_ISBLK(state.st_mode)))
			printf("show %s: %s %u:%u\n", path, names[i]->d_name, major(state.st_rdev), minor(state.st_rdev));
		else
			printf("show %s: %s\n", path, names[i]->d_name);
	}
}

static void show_device(const char *path, int fd)
{
	char piece[65536];
	ssize_t got;
	long all = 0;

	while ((got = read(fd, piece, sizeof(piece))) > 0)
		all += got;
	printf("show %s: block %ld bytes%s%s\n", path, all, got < 0 ? " " : "", got < 0 ? strerrorname_np(errno) : "");
}

static void show_lines(const char *path, int fd)
{
	FILE *file = fdopen(fd, "re");
	char line[8192];

	while (fgets(line, sizeof(line), file)) {
		line[strcspn(line, "\n")] = '\0';
		printf("show %s: %s\n", path, line);
	}
	fclose(file);
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		struct stat state;

		if (!strcmp(argv[i], "env")) {
			for (char **row = environ; *row; row++)
				printf("show env: %s\n", *row);
			continue;
		}
		int fd = open(argv[i], O_RDONLY | O_CLOEXEC);

		if (fd < 0 || fstat(fd, &state) != 0)
			printf("show %s: %s\n", argv[i], strerrorname_np(errno));
		else if (S_ISDIR(state.st_mode))
			show_folder(argv[i]);
		else if (S_ISBLK(state.st_mode))
			show_device(argv[i], fd);
		else
			show_lines(argv[i], fd);
		if (fd >= 0)
			close(fd);
	}
	return 0;
}
