// SPDX-License-Identifier: Apache-2.0
/*
 * A libnvidia-nscq.so.2 without an NVSwitch: the session interface of NVIDIA's library, answering from a text file as the
 * stand-in NVML does. README.md has the grammar. Written for this project; no NVIDIA header or code is in it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define FILE_NAME "nscq-mock.conf"

enum { MAX_SWITCHES = 32, MOUNT_DEVICES = 1 };
enum { SUCCESS = 0, NOT_IMPLEMENTED = -1, INVALID_UUID = -2, NOT_MOUNTABLE = -3, UNEXPECTED_VALUE = -5, EXTERNAL = -127 };

typedef struct { uint8_t bytes[16]; } uuid_type;
typedef struct { char data[64]; } label_type;
typedef struct { uint32_t domain; uint8_t bus, device, function; } place_type;
typedef void (*callback)(void);

struct nvswitch {
	uuid_type uuid;
	place_type place;
	int8_t mode;		/* 0 off, 1 on, 2 failed, 3 on and locked */
	int8_t code;		/* of questions about this switch alone */
	bool gone, hidden;	/* gone: not listed, and silent; hidden: listed, and silent about its mode */
	int twin;		/* answers with the identity of that switch; -1: its own */
};

struct session {
	unsigned count;
	struct nvswitch rows[MAX_SWITCHES];
	int nodes[MAX_SWITCHES + 1];
};

typedef struct { int8_t rc; struct session *session; } created_type;

struct described {
	struct session session;
	char nodes[PATH_MAX];
	int create;
	bool hang;
};

/* nscq-mock.conf beside this library, else below /etc. */
static FILE *open_description(void)
{
	Dl_info self;
	char path[PATH_MAX];

	if (dladdr((void *)open_description, &self) && strrchr(self.dli_fname, '/')) {
		snprintf(path, sizeof(path), "%.*s/" FILE_NAME, (int)(strrchr(self.dli_fname, '/') - self.dli_fname), self.dli_fname);
		FILE *found = fopen(path, "re");

		if (found)
			return found;
	}
	return fopen("/etc/" FILE_NAME, "re");
}

static bool read_uuid(const char *text, uuid_type *uuid)
{
	unsigned at = 0;

	if (strncmp(text, "SWX-", 4))
		return false;
	for (text += 4; *text && at < 32; text++) {
		if (*text == '-')
			continue;
		int digit = *text >= 'a' && *text <= 'f' ? *text - 'a' + 10 : *text >= '0' && *text <= '9' ? *text - '0' : -1;

		if (digit < 0)
			return false;
		uuid->bytes[at / 2] = (uint8_t)(uuid->bytes[at / 2] << 4 | digit);
		at++;
	}
	return at == 32 && !*text;
}

static bool read_place(const char *text, place_type *place)
{
	unsigned domain, bus, device, function;

	if (sscanf(text, "%x:%x:%x.%x", &domain, &bus, &device, &function) != 4)
		return false;
	*place = (place_type){ domain, (uint8_t)bus, (uint8_t)device, (uint8_t)function };
	return true;
}

/* One directive; false for a line that is none. */
static bool read_line(char *line, struct described *into)
{
	char first[80] = "", second[80] = "";
	struct session *session = &into->session;
	int value = 0, row = -1;

	line[strcspn(line, "#\n")] = '\0';
	if (sscanf(line, " %79s", first) != 1)
		return true;
	if (!strcmp(first, "switch")) {
		struct nvswitch *next = &session->rows[session->count];

		if (session->count == MAX_SWITCHES || sscanf(line, " switch %79s %79s %d", first, second, &value) != 3)
			return false;
		*next = (struct nvswitch){ .mode = (int8_t)value, .twin = -1 };
		session->count++;
		return read_uuid(first, &next->uuid) && read_place(second, &next->place);
	}
	if (!strcmp(first, "nodes"))
		return sscanf(line, " nodes %4000s", into->nodes) == 1;
	if (!strcmp(first, "create"))
		return sscanf(line, " create %d", &into->create) == 1;
	if (!strcmp(first, "hang"))
		return into->hang = true;
	if (sscanf(line, " %*s %d", &row) != 1 || row < 0 || (unsigned)row >= session->count)
		return false;
	if (!strcmp(first, "gone"))
		return session->rows[row].gone = true;
	if (!strcmp(first, "hidden"))
		return session->rows[row].hidden = true;
	if (!strcmp(first, "place") && sscanf(line, " %*s %*d %79s", second) == 1)
		return read_place(second, &session->rows[row].place);
	if (sscanf(line, " %*s %*d %d", &value) != 1)
		return false;
	if (!strcmp(first, "mode"))
		session->rows[row].mode = (int8_t)value;
	else if (!strcmp(first, "code"))
		session->rows[row].code = (int8_t)value;
	else if (!strcmp(first, "twin") && value >= 0 && (unsigned)value < session->count)
		session->rows[row].twin = value;
	else
		return false;
	return true;
}

static bool read_description(struct described *into)
{
	FILE *file = open_description();
	char line[PATH_MAX + 80];
	bool whole = file != NULL;

	for (unsigned number = 1; whole && fgets(line, sizeof(line), file); number++) {
		whole = read_line(line, into);
		if (!whole)
			fprintf(stderr, FILE_NAME ":%u: no directive\n", number);
	}
	if (file)
		fclose(file);
	return whole;
}

/* The control node and one for each switch, as the real library has them open from mount to unmount. */
static bool open_nodes(const char *folder, struct session *session)
{
	for (unsigned at = 0; *folder && at <= session->count; at++) {
		char path[PATH_MAX + 40];

		if (at == session->count)
			snprintf(path, sizeof(path), "%s/nvidia-nvswitchctl", folder);
		else
			snprintf(path, sizeof(path), "%s/nvidia-nvswitch%u", folder, at);
		session->nodes[at] = open(path, O_RDWR | O_CLOEXEC);
		if (session->nodes[at] < 0) {
			perror(path);
			return false;
		}
	}
	return true;
}

EXPORT void nscq_session_destroy(struct session *session)
{
	for (unsigned at = 0; session && at <= MAX_SWITCHES; at++)
		if (session->nodes[at] >= 0)
			close(session->nodes[at]);
	free(session);
}

EXPORT created_type nscq_session_create(uint32_t flags)
{
	struct described *machine = calloc(1, sizeof(*machine));
	created_type made = { EXTERNAL, NULL };

	if (!machine)
		return made;
	for (unsigned at = 0; at <= MAX_SWITCHES; at++)
		machine->session.nodes[at] = -1;
	if (read_description(machine)) {
		while (machine->hang)
			pause();
		made.rc = (int8_t)machine->create;
		made.session = malloc(sizeof(struct session));
		if (made.session)
			*made.session = machine->session;
		if (made.rc >= 0 && (!made.session || ((flags & MOUNT_DEVICES) && !open_nodes(machine->nodes, made.session))))
			made.rc = NOT_MOUNTABLE;
	}
	if (made.rc < 0) {
		nscq_session_destroy(made.session);
		made.session = NULL;
	}
	free(machine);
	return made;
}

EXPORT int8_t nscq_uuid_to_label(const uuid_type *uuid, label_type *label, uint32_t flags)
{
	const uint8_t *b = uuid ? uuid->bytes : NULL;

	if (!b || !label || flags)
		return INVALID_UUID;
	memset(label, 0, sizeof(*label));
	snprintf(label->data, sizeof(label->data), "SWX-%02X%02X%02X%02X-%02X%02X-%02X%02X-%02X%02X-%02X%02X%02X%02X%02X%02X",
		 b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
	return SUCCESS;
}

static void answer(const struct nvswitch *row, const char *question, const uuid_type *whose, callback told, void *data)
{
	if (strstr(question, "uuid"))
		((void (*)(const uuid_type *, int8_t, const uuid_type *, void *))told)(whose, SUCCESS, whose, data);
	else if (strstr(question, "location"))
		((void (*)(const uuid_type *, int8_t, place_type, void *))told)(whose, row->code, row->place, data);
	else if (!row->hidden)
		((void (*)(const uuid_type *, int8_t, int8_t, void *))told)(whose, row->code, row->mode, data);
}

EXPORT int8_t nscq_session_path_observe(struct session *session, const char *path, callback told, void *data, uint32_t flags)
{
	static const char *const known[] = { "/drv/nvswitch/{device}/uuid", "/{nvswitch}/pcie/location",
					     "/{nvswitch}/config/pcie_mode" };
	bool is_known = false;

	if (!session || !path || !told || flags)
		return UNEXPECTED_VALUE;
	for (unsigned at = 0; at < sizeof(known) / sizeof(*known); at++)
		is_known |= !strcmp(path, known[at]);
	if (!is_known)
		return NOT_IMPLEMENTED;
	for (unsigned at = 0; at < session->count; at++) {
		const struct nvswitch *row = &session->rows[at];

		if (!row->gone)
			answer(row, path, row->twin < 0 ? &row->uuid : &session->rows[row->twin].uuid, told, data);
	}
	return SUCCESS;
}
