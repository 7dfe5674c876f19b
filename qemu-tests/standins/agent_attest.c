// SPDX-License-Identifier: Apache-2.0
/*
 * A stand-in for the attestation agent that kata-agent starts, and for the key broker behind it: the same socket, ttRPC,
 * and three methods. Its evidence is about the GPUs of the emulated driver's description and has the caller's nonce;
 * nothing is signed. HOW: accept, refuse (the broker's no), hang (no token ever), other (evidence of another GPU).
 */
#include "agent.h"
#include "common.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define FOLDER "/run/confidential-containers/attestation-agent"
#define GPUS "/etc/nvml-mock.conf"
#define OTHER "GPU-ffffffff-0000-4000-8000-000000000000"
/* As the emulated NVML gives it. */
#define CERTIFICATE "-----BEGIN CERTIFICATE-----\n%s\n-----END CERTIFICATE-----\n"

enum { HEADER = 10, BODY_MAX = 64 * 1024, NONCE = 32, REPORT = 256, MOST_GPUS = 32, PERMISSION_DENIED = 7 };

static char uuids[MOST_GPUS][64];
static int gpus;

static void read_gpus(void)
{
	static char text[TEXT_MAX];

	if (read_text(GPUS, text, sizeof(text)) < 0)
		return;
	for (char *line = text, *next; line && *line && gpus < MOST_GPUS; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		if (!strncmp(line, "gpu ", 4) && word_value(line, "uuid", uuids[gpus], sizeof(uuids[0])))
			gpus++;
	}
}

/* URL: the alphabet of tokens, which have no padding. */
static void base64(const void *from, size_t size, char *into, bool url)
{
	const char *letters = url ? "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
				  : "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const uint8_t *data = from;

	for (size_t at = 0; at < size; at += 3) {
		size_t left = size - at < 3 ? size - at : 3;
		uint32_t bits = data[at] << 16 | (left > 1 ? data[at + 1] << 8 : 0) | (left > 2 ? data[at + 2] : 0);

		for (size_t i = 0; i < 4; i++) {
			if (i <= left)
				*into++ = letters[bits >> (18 - 6 * i) & 63];
			else if (!url)
				*into++ = '=';
		}
	}
	*into = '\0';
}

/* An SPDM exchange of measurements: the request, 37 bytes with the nonce, and the answer. The real one tells no UUID either. */
static size_t write_evidence(const uint8_t *nonce, bool is_other, char *into)
{
	uint8_t report[REPORT] = { 0x11, 0xe0, 0x01, 0xff };
	char text[2 * REPORT];
	char *at = into;

	memcpy(report + 4, nonce, NONCE);
	report[37] = 0x11;
	report[38] = 0x60;
	base64(report, sizeof(report), text, false);
	at += sprintf(at, "{\"nvidia\":{\"device_evidence_list\":[");
	for (int i = 0; i < gpus; i++) {
		char certificate[128], packed[256];
		int size = snprintf(certificate, sizeof(certificate), CERTIFICATE, is_other && i == gpus - 1 ? OTHER : uuids[i]);

		base64(certificate, (size_t)size, packed, false);
		at += sprintf(at, "%s{\"arch\":\"HOPPER\",\"uuid\":\"unknown\",\"evidence\":\"%s\",\"certificate\":\"%s\"}", i ? "," : "",
			      text, packed);
	}
	at += sprintf(at, "]}}");
	return (size_t)(at - into);
}

static size_t write_token(char *into)
{
	char claims[4096], text[8192];
	char *at = claims;

	at += sprintf(at, "{\"exp\":4102444800,\"submods\":{\"cpu0\":{\"ear.status\":\"affirming\"}");
	for (int i = 0; i < gpus; i++)
		at += sprintf(at, ",\"gpu%d\":{\"ear.status\":\"affirming\"}", i);
	at += sprintf(at, "}}");
	base64(claims, (size_t)(at - claims), text, true);
	return (size_t)sprintf(into, "{\"token\":\"e30.%s.c2ln\",\"tee_keypair\":\"\"}", text);
}

static uint8_t *put_length(uint8_t *at, size_t size)
{
	for (; size > 0x7f; size >>= 7)
		*at++ = (uint8_t)(size & 0x7f) | 0x80;
	*at++ = (uint8_t)size;
	return at;
}

/* Field `number` of bytes; returns where the next one goes. */
static uint8_t *put_field(uint8_t *at, int number, const void *data, size_t size)
{
	*at++ = (uint8_t)(number << 3 | 2);
	at = put_length(at, size);
	memcpy(at, data, size);
	return at + size;
}

static bool read_all(int fd, void *into, size_t size)
{
	for (uint8_t *at = into; size; ) {
		ssize_t got = read(fd, at, size);

		if (got <= 0)
			return false;
		at += got;
		size -= (size_t)got;
	}
	return true;
}

static void send_answer(int fd, uint32_t stream, const uint8_t *body, size_t size)
{
	uint8_t head[HEADER] = { 0 };
	uint32_t words[2] = { htonl((uint32_t)size), htonl(stream) };

	memcpy(head, words, sizeof(words));
	head[8] = 2;
	if (write(fd, head, sizeof(head)) != sizeof(head) || write(fd, body, size) != (ssize_t)size)
		tell("attestation: the answer was not taken\n");
}

static void send_text(int fd, uint32_t stream, const char *text, size_t size)
{
	static uint8_t message[BODY_MAX + 16], body[BODY_MAX + 32];
	uint8_t *end = put_field(message, 1, text, size);

	end = put_field(body, 2, message, (size_t)(end - message));
	send_answer(fd, stream, body, (size_t)(end - body));
}

static void send_refusal(int fd, uint32_t stream, const char *why)
{
	uint8_t status[256] = { 1 << 3, PERMISSION_DENIED }, body[300];
	uint8_t *end = put_field(status + 2, 2, why, strlen(why));

	end = put_field(body, 1, status, (size_t)(end - status));
	send_answer(fd, stream, body, (size_t)(end - body));
}

static void answer(int fd, uint32_t stream, const uint8_t *body, size_t size, const char *how)
{
	static char text[BODY_MAX];
	static const char evidence[] = "GetAdditionalEvidence", token[] = "GetToken", kind[] = "GetTeeType";
	const uint8_t *asked = memmem(body, size, evidence, sizeof(evidence) - 1);

	if (asked) {	/* then the payload: field 3 with a message, whose field 1 is the nonce */
		const uint8_t *nonce = asked + sizeof(evidence) - 1 + 4;

		if (nonce + NONCE > body + size)
			send_refusal(fd, stream, "no nonce");
		else
			send_text(fd, stream, text, write_evidence(nonce, !strcmp(how, "other"), text));
	} else if (memmem(body, size, kind, sizeof(kind) - 1)) {
		send_text(fd, stream, "snp", 3);
	} else if (memmem(body, size, token, sizeof(token) - 1)) {
		if (!strcmp(how, "hang"))
			pause();
		else if (!strcmp(how, "refuse"))
			send_refusal(fd, stream, "KBS answered 401 Unauthorized");
		else
			send_text(fd, stream, text, write_token(text));
	} else {
		send_refusal(fd, stream, "unknown method");
	}
}

static void serve(int fd, const char *how)
{
	static uint8_t body[BODY_MAX];
	uint8_t head[HEADER];

	while (read_all(fd, head, sizeof(head))) {
		uint32_t words[2];

		memcpy(words, head, sizeof(words));
		if (ntohl(words[0]) > sizeof(body) || !read_all(fd, body, ntohl(words[0])))
			return;
		answer(fd, ntohl(words[1]), body, ntohl(words[0]), how);
	}
}

void start_attestation(const char *how)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX, .sun_path = FOLDER "/attestation-agent.sock" };

	fflush(stdout);
	if (fork())
		return;
	read_gpus();
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);

	if (!make_folders(FOLDER, 0755) || bind(listener, (struct sockaddr *)&name, sizeof(name)) < 0 || listen(listener, 8) < 0) {
		tell("attestation: %s: %s\n", name.sun_path, strerror(errno));
		_exit(1);
	}
	tell("attestation: serves %d GPUs, %s\n", gpus, how);
	for (int peer; (peer = accept(listener, NULL, NULL)) >= 0; close(peer))
		serve(peer, how);
	_exit(1);
}
