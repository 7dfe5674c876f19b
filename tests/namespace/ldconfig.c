// SPDX-License-Identifier: Apache-2.0
/*
 * An ldconfig that was taken over by a library that it read. /etc/ldconfig says what it does: `cache` makes one and nothing
 * else; `link` puts a link to a secret in its place; `stay` leaves a process behind; `plant` puts links where
 * PID 1 is about to write.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void make(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	if (!file)
		return;
	fputs(text, file);
	fclose(file);
}

static void plant(void)
{
	static const char *const PLACES[] = { "/run/fabricmanager.cfg.new", "/run/cdi", "/run/nvrc/boot.json.new", "/run/ld.so.cache.new",
					      "/run/nvidia-persistenced", "/run/kata-extensions/gpu" };

	for (unsigned long i = 0; i < sizeof(PLACES) / sizeof(*PLACES); i++)
		if (symlink("/etc/secret", PLACES[i]) == 0)
			fprintf(stderr, "%s\n", PLACES[i]); /* in a /run of its own, or not */
}

int main(int argc, char **argv)
{
	const char *cache = argv[argc - 1];
	char word[16] = "";
	int fd = open("/etc/ldconfig", O_RDONLY);

	if (fd < 0 || read(fd, word, sizeof(word) - 1) < 0)
		return 2;
	if (!strcmp(word, "link"))
		return symlink("/etc/secret", cache);
	make(cache, "cache");
	if (!strcmp(word, "plant"))
		plant();
	if (!strcmp(word, "stay")) {
		pid_t child = fork();

		if (child == 0) {
			setsid();
			sleep(60);
		}
	}
	return 0;
}
