/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A container's program that asks the pod's loopback: ask PORT PATH, and prints the answer's status and body.
 *   ask: 200 the-secret
 *   ask: connect: Connection refused
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	static char answer[65536];
	struct sockaddr_in at = { .sin_family = AF_INET };
	size_t length = 0;
	ssize_t got;
	char *body;
	int line;

	if (argc != 3) {
		fprintf(stderr, "ask: ask PORT PATH\n");
		return 2;
	}
	at.sin_port = htons((unsigned short)atoi(argv[1]));
	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	line = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (line < 0 || connect(line, (struct sockaddr *)&at, sizeof(at)) != 0) {
		printf("ask: connect: %s\n", strerror(errno));
		return 1;
	}
	dprintf(line, "GET %s HTTP/1.0\r\nHost: 127.0.0.1:%s\r\n\r\n", argv[2], argv[1]);
	while (length < sizeof(answer) - 1 && (got = read(line, answer + length, sizeof(answer) - 1 - length)) > 0)
		length += (size_t)got;
	answer[length] = 0;
	body = strstr(answer, "\r\n\r\n");
	if (strncmp(answer, "HTTP/1.", 7) != 0 || body == NULL) {
		printf("ask: no answer\n");
		return 1;
	}
	printf("ask: %.3s %s\n", answer + 9, body + 4);
	return 0;
}
