/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The only program of the lab's container. It is linked against libcuda.so.1, which its loader finds only when nodes,
 * mounts and hooks of the CDI document did their work, and prints what it sees, one fact a line:
 *   container: clock start=4123456     (microseconds of the boot clock)
 *   container: cuda 42
 *   container: node nvidia0 195:0 mode=666 open=ok | open=EPERM
 *   container: library libcuda.so.1 -> libcuda.so.550.163.01 | file
 *   container: cached libcuda.so.1 yes | no           (in /etc/ld.so.cache)
 *   container: env NVIDIA_VISIBLE_DEVICES=void
 *   container: gpus 0000:40:00.0 ...                  (of /proc/driver/nvidia/gpus)
 *   container: made nvidia0 open=ok                   (a GPU of somebody else's, by a node that it made itself)
 *   container: made all                               (every other one was refused to it)
 * Compiled with PLAIN it needs no library: for a container that asks for no device, and must have none.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#ifndef PLAIN
int cuda_answer(void);
#endif

enum { GPU_MAJOR = 195, GPU_MINORS = 16 };

extern char **environ;

static int visible(const struct dirent *entry)
{
	return *entry->d_name != '.';
}

static void look_at_node(const char *folder, const char *name, const char *shown)
{
	char path[4096];
	struct stat node;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	if (lstat(path, &node) != 0 || !S_ISCHR(node.st_mode))
		return;
	/* Capabilities of MIG instances are opened for reading; that they may be opened is all there is to them. */
	int fd = open(path, (*shown ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	const char *result = fd >= 0 ? "ok" : strerrorname_np(errno);

	if (fd >= 0)
		close(fd);
	printf("container: node %s%s %u:%u mode=%o open=%s\n", shown, name, major(node.st_rdev), minor(node.st_rdev),
	       node.st_mode & 07777, result);
}

static void look_at_nodes(const char *folder, const char *shown)
{
	struct dirent **names;
	int count = scandir(folder, &names, visible, alphasort);

	for (int i = 0; i < count; i++)
		if (*shown || !strncmp(names[i]->d_name, "nvidia", 6))
			look_at_node(folder, names[i]->d_name, shown);
}

/* A device cgroup that lets no GPU in but those of the request holds also for nodes that a container makes itself. */
static void make_own_nodes(void)
{
	for (int minor = 0; minor < GPU_MINORS; minor++) {
		char given[64], own[64];
		struct stat node;

		snprintf(given, sizeof(given), "/dev/nvidia%d", minor);
		snprintf(own, sizeof(own), "/dev/own%d", minor);
		if (lstat(given, &node) == 0)
			continue;
		int fd = mknod(own, S_IFCHR | 0666, makedev(GPU_MAJOR, minor)) == 0 ? open(own, O_RDWR | O_CLOEXEC) : -1;

		if (fd >= 0 || errno != EPERM)
			printf("container: made nvidia%d open=%s\n", minor, fd >= 0 ? "ok" : strerrorname_np(errno));
		if (fd >= 0)
			close(fd);
	}
	printf("container: made all\n");
}

static void look_at_libraries(const char *folder)
{
	struct dirent **names;
	int count = scandir(folder, &names, visible, alphasort);

	for (int i = 0; i < count; i++) {
		char path[4096], target[4096];
		struct stat file;

		snprintf(path, sizeof(path), "%s/%s", folder, names[i]->d_name);
		if (lstat(path, &file) != 0 || S_ISDIR(file.st_mode))
			continue;
		ssize_t length = S_ISLNK(file.st_mode) ? readlink(path, target, sizeof(target) - 1) : 0;

		target[length > 0 ? length : 0] = '\0';
		printf("container: library %s %s%s\n", names[i]->d_name, length > 0 ? "-> " : "file", target);
	}
}

static void look_at_cache(const char *name)
{
	static char text[1 << 20];
	int fd = open("/etc/ld.so.cache", O_RDONLY | O_CLOEXEC);
	ssize_t length = fd >= 0 ? read(fd, text, sizeof(text)) : 0;

	printf("container: cached %s %s\n", name, length > 0 && memmem(text, (size_t)length, name, strlen(name) + 1) ? "yes" : "no");
	if (fd >= 0)
		close(fd);
}

static void look_at_proc(void)
{
	struct dirent **names;
	int count = scandir("/proc/driver/nvidia/gpus", &names, visible, alphasort);

	printf("container: gpus");
	for (int i = 0; i < count; i++)
		printf(" %s", names[i]->d_name);
	printf("\n");
}

int main(int argc, char **argv)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	printf("container: clock start=%ld\n", now.tv_sec * 1000000L + now.tv_nsec / 1000);
#ifdef PLAIN
	printf("container: plain\n");
#else
	printf("container: cuda %d\n", cuda_answer());
#endif
	make_own_nodes();
	look_at_nodes("/dev", "");
	look_at_nodes("/dev/nvidia-caps", "nvidia-caps/");
	look_at_nodes("/dev/infiniband", "infiniband/");
	for (int i = 1; i < argc; i++)
		look_at_libraries(argv[i]);
	look_at_cache("libcuda.so.1");
	for (char **entry = environ; *entry; entry++)
		printf("container: env %s\n", *entry);
	look_at_proc();
	return 0;
}
