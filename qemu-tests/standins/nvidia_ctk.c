// SPDX-License-Identifier: Apache-2.0
/*
 * nvidia-ctk cdi generate --output=FILE: a CDI document with a device for each GPU, by index and by UUID, the control
 * nodes, the driver's libraries, and the hooks that make a container's loader find them: enough for a foreign init to
 * boot and for a container to start, not a reference for ours. Like the real one it opens every GPU.
 */
#include "nvidia.h"
#include "common.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#define LIBRARIES "/usr/lib/x86_64-linux-gnu"
#define HOOK "/usr/bin/nvidia-cdi-hook"

static struct gpu gpus[GPUS_MAX];

static void write_device(FILE *out, const char *name, int minor_number)
{
	fprintf(out, "    - name: \"%s\"\n      containerEdits:\n        deviceNodes:\n            - path: /dev/nvidia%d\n", name,
		minor_number);
}

static void write_all(FILE *out, int count)
{
	fprintf(out, "    - name: all\n      containerEdits:\n        deviceNodes:\n");
	for (int i = 0; i < count; i++)
		if (gpus[i].fd >= 0)
			fprintf(out, "            - path: /dev/nvidia%d\n", gpus[i].minor);
}

/* lib*.so.550.163.01: what has a release for a version is the driver's. */
static int is_library(const struct dirent *entry)
{
	const char *version = strstr(entry->d_name, ".so.");
	const char *dot = version ? strchr(version + 4, '.') : NULL;

	return dot && strchr(dot + 1, '.') && (!strncmp(entry->d_name, "libcuda", 7) || !strncmp(entry->d_name, "libnvidia", 9));
}

static void write_hook(FILE *out, const char *name, const char *option_name, const char *value)
{
	fprintf(out, "        - hookName: createContainer\n          path: " HOOK "\n          args:\n            - nvidia-cdi-hook\n"
		"            - %s\n            - %s\n            - %s\n", name, option_name, value);
}

static void write_libraries(FILE *out)
{
	struct dirent **names;
	int count = scandir(LIBRARIES, &names, is_library, alphasort);

	if (count < 1)
		return;
	fprintf(out, "    hooks:\n");
	write_hook(out, "create-symlinks", "--link", "libcuda.so.1::" LIBRARIES "/libcuda.so");
	write_hook(out, "update-ldcache", "--folder", LIBRARIES);
	fprintf(out, "    mounts:\n");
	for (int i = 0; i < count; i++)
		fprintf(out, "        - hostPath: " LIBRARIES "/%s\n          containerPath: " LIBRARIES "/%s\n          options:\n"
			"            - ro\n            - nosuid\n            - nodev\n            - rbind\n            - rprivate\n",
			names[i]->d_name, names[i]->d_name);
}

static void write_document(FILE *out, int count)
{
	static const char *const nodes[] = { "/dev/nvidia-modeset", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidiactl" };
	char name[32];
	int index = 0;

	fprintf(out, "---\ncdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n");
	for (int i = 0; i < count; i++)
		if (gpus[i].fd >= 0) {
			snprintf(name, sizeof(name), "%d", index++);
			write_device(out, name, gpus[i].minor);
			write_device(out, gpus[i].uuid, gpus[i].minor);
		}
	write_all(out, count);
	fprintf(out, "containerEdits:\n    env:\n        - NVIDIA_VISIBLE_DEVICES=void\n    deviceNodes:\n");
	for (size_t i = 0; i < sizeof(nodes) / sizeof(*nodes); i++)
		if (access(nodes[i], F_OK) == 0)
			fprintf(out, "        - path: %s\n", nodes[i]);
	write_libraries(out);
}

static bool make_parent(const char *path)
{
	char folder[4096];

	snprintf(folder, sizeof(folder), "%s", path);
	char *slash = strrchr(folder, '/');

	if (!slash || slash == folder)
		return true;
	*slash = '\0';
	return make_folders(folder, 0755);
}

int ctk_main(int argc, char **argv)
{
	const char *path = option(argc, argv, "--output");
	int count = list_gpus(gpus);

	openlog("nvidia-ctk", LOG_PID, LOG_DAEMON);
	suffer_early_faults();
	if (!has_option(argc, argv, "cdi") || !has_option(argc, argv, "generate") || !path) {
		fprintf(stderr, "nvidia-ctk: this stand-in knows only: cdi generate --output=FILE\n");
		return 1;
	}
	if (count < 0 || open_all(gpus, count) < 1) {
		fprintf(stderr, "level=error msg=\"failed to generate CDI spec: no NVIDIA device could be initialised\"\n");
		return 1;
	}
	FILE *out = make_parent(path) ? fopen(path, "w") : NULL;

	if (!out) {
		fprintf(stderr, "level=error msg=\"failed to create %s: %s\"\n", path, strerror(errno));
		return 1;
	}
	write_document(out, count);
	return fclose(out) == 0 ? 0 : 1;
}
