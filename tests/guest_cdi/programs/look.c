/* SPDX-License-Identifier: Apache-2.0 */
/* A container's only program: one line of JSON with what it sees. It is linked against libcuda.so.1. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

int cuda_answer(void);

static void list(const char *label, const char *directory, const char *prefix)
{
	DIR *stream = opendir(directory);
	struct dirent *entry;
	const char *comma = "";

	printf("\"%s\": {", label);
	while (stream && (entry = readdir(stream)) != NULL) {
		char path[4096], target[4096] = "";
		struct stat status;

		snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
		if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0 || lstat(path, &status) != 0)
			continue;
		if (S_ISCHR(status.st_mode))
			snprintf(target, sizeof target, "c %u:%u %o", major(status.st_rdev), minor(status.st_rdev), status.st_mode & 07777);
		else if (S_ISLNK(status.st_mode) && readlink(path, target, sizeof target - 1) < 0)
			strcpy(target, "?");
		else if (S_ISREG(status.st_mode))
			strcpy(target, access(path, W_OK) == 0 ? "writable" : "file");
		printf("%s\"%s\": \"%s\"", comma, entry->d_name, target);
		comma = ", ";
	}
	printf("}, ");
}

int main(int argc, char **argv)
{
	const char *visible = getenv("NVIDIA_VISIBLE_DEVICES"), *directory = getenv("NVIDIA_CTK_LIBCUDA_DIR");

	if (argc != 2)
		return 2;
	printf("{\"cuda\": %d, \"uid\": %d, \"visible\": \"%s\", \"directory\": \"%s\", ", cuda_answer(), (int)getuid(),
		visible ? visible : "", directory ? directory : "");
	list("nodes", "/dev", "nvidia");
	list("libraries", argv[1], "lib");
	printf("\"zero\": %s}\n", open("/dev/nvidia-zero", O_RDONLY) >= 0 ? "true" : "false");
	return 0;
}
