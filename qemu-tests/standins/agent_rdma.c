// SPDX-License-Identifier: Apache-2.0
/*
 * What matters to GPUs and NICs together: the nodes that kata-agent would give to containers, the documents of NICs, the
 * machine as NCCL reads it, and the PCI functions as sysfs has them, to hold against the init's own report.
 */
#define _GNU_SOURCE
#include "agent.h"
#include "common.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define NODES "/dev/infiniband"
#define FUNCTIONS "/sys/bus/pci/devices"

static int visible(const struct dirent *entry)
{
	return *entry->d_name != '.';
}

static int list(const char *path, struct dirent ***names)
{
	return scandir(path, names, visible, alphasort);
}

static void report_nodes(void)
{
	struct dirent **names;
	int count = list(NODES, &names);

	tell("agent: infiniband nodes=%d\n", count);
	for (int i = 0; i < count; i++) {
		char path[WORD_MAX * 2];
		struct stat node;

		snprintf(path, sizeof(path), NODES "/%s", names[i]->d_name);
		if (lstat(path, &node) == 0)
			tell("agent: infiniband %s %s %u:%u\n", names[i]->d_name, S_ISCHR(node.st_mode) ? "char" : "other",
			     major(node.st_rdev), minor(node.st_rdev));
	}
}

static void report_text(const char *path)
{
	static char text[TEXT_MAX];

	if (read_text(path, text, sizeof(text)) < 0) {
		tell("agent: text %s: absent\n", path);
		return;
	}
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
		tell("agent: text %s: %s\n", path, line);
}

static const char *attribute(const char *function, const char *name, char *into, size_t size)
{
	char path[WORD_MAX * 2];

	snprintf(path, sizeof(path), FUNCTIONS "/%s/%s", function, name);
	if (read_text(path, into, size) < 0)
		return "-";
	into[strcspn(into, "\n")] = '\0';
	return into;
}

/* The numbers of extended capabilities, in order, with a comma before each. */
static void list_capabilities(const char *name, char *into, size_t size)
{
	unsigned char space[4096];
	char path[WORD_MAX * 2];
	size_t used = 0;
	unsigned int at = 0x100;

	into[0] = '\0';
	snprintf(path, sizeof(path), FUNCTIONS "/%s/config", name);
	int file = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length = file < 0 ? 0 : read(file, space, sizeof(space));

	if (file >= 0)
		close(file);
	while (at >= 0x100 && at + 4 <= length && used + 8 < size) {
		unsigned int id = space[at] | space[at + 1] << 8, next = (space[at + 2] | space[at + 3] << 8) >> 4;

		if (id == 0 || id == 0xffff)
			return;
		used += snprintf(into + used, size - used, ",%x", id);
		if (next <= at)
			return;
		at = next;
	}
}

/* Network functions, displays and PCI bridges. */
static void report_function(const char *name)
{
	char class[64], vendor[64], numa[64], speed[64], width[64], most[64], wide[64], capabilities[128];
	char path[4096], link[WORD_MAX * 2];
	unsigned long code = strtoul(attribute(name, "class", class, sizeof(class)), NULL, 16);

	if (code >> 16 != 2 && code >> 16 != 3 && code >> 8 != 0x604)
		return;
	list_capabilities(name, capabilities, sizeof(capabilities));
	snprintf(link, sizeof(link), FUNCTIONS "/%s", name);
	ssize_t length = readlink(link, path, sizeof(path) - 1);

	tell("agent: function %s|%.*s|%s|%s|%s|%s|%s|%06lx|%s|%s\n", name, length > 0 ? (int)length : 1, length > 0 ? path : "?",
	     attribute(name, "numa_node", numa, sizeof(numa)), attribute(name, "current_link_speed", speed, sizeof(speed)),
	     attribute(name, "current_link_width", width, sizeof(width)), attribute(name, "max_link_speed", most, sizeof(most)),
	     attribute(name, "max_link_width", wide, sizeof(wide)), code, attribute(name, "vendor", vendor, sizeof(vendor)),
	     capabilities);
}

void report_rdma(void)
{
	struct dirent **names;
	int count = list(FUNCTIONS, &names);

	report_nodes();
	report_text("/var/run/cdi/nvidia-nic.yaml");
	report_text("/var/run/cdi/nvidia-ib.yaml");
	report_text("/var/run/nvidia-topologyd/virtualTopology.xml");
	for (int i = 0; i < count; i++)
		report_function(names[i]->d_name);
}
