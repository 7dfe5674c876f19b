/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A container's program that brings another one to an empty volume and becomes it: carry FROM TO [ARG...].
 *   carry: /volume/show: Permission denied
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct stat state;
	int from = argc > 2 ? open(argv[1], O_RDONLY | O_CLOEXEC) : -1;
	int to = argc > 2 ? open(argv[2], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755) : -1;

	if (from < 0 || to < 0 || fstat(from, &state) != 0)
		goto failed;
	while (state.st_size > 0) {
		ssize_t sent = sendfile(to, from, NULL, state.st_size);

		if (sent <= 0)
			goto failed;
		state.st_size -= sent;
	}
	close(to);
	execv(argv[2], argv + 2);
failed:
	fprintf(stderr, "carry: %s: %s\n", argc > 2 ? argv[2] : "carry FROM TO", strerror(errno));
	return 126;
}
