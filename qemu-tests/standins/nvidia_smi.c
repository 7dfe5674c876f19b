// SPDX-License-Identifier: Apache-2.0
/*
 * nvidia-smi: -L, -lgc, -lmc, -pl, -pm, conf-compute -srs/-grs/-f. Like the real one it opens every GPU, which attaches
 * those nobody holds: on a confidential GPU that was the one attach it had. The ready state lives in /var/run/nvidia-lab-ready.
 */
#include "nvidia.h"
#include "common.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#define READY_STATE "/var/run/nvidia-lab-ready"

enum { EXIT_INVALID = 2, EXIT_UNSUPPORTED = 3, EXIT_NOT_FOUND = 6, EXIT_NO_DRIVER = 9 };

static struct gpu gpus[GPUS_MAX];
static int gpu_count, opened;

static int fail(int status, const char *text)
{
	puts(text);
	return status;
}

static int list(void)
{
	int index = 0;

	if (!opened)
		return fail(0, "No devices found.");
	for (int i = 0; i < gpu_count; i++)
		if (gpus[i].fd >= 0)
			printf("GPU %d: %s (UUID: %s)\n", index++, gpus[i].model, gpus[i].uuid);
	return 0;
}

/* One line for each GPU, then the tool's own last line. */
static int set_each(const char *value, const char *format)
{
	char *end;

	if (!value || !*value || (strtoul(value, &end, 10), *end))
		return fail(EXIT_INVALID, "Invalid combination of input arguments. Please run 'nvidia-smi -h' for help.");
	for (int i = 0; i < gpu_count; i++)
		if (gpus[i].fd >= 0)
			printf(format, gpus[i].place, value);
	return fail(0, "All done.");
}

static bool is_confidential(void)
{
	bool all = opened > 0;

	for (int i = 0; i < gpu_count; i++)
		all = all && (gpus[i].fd < 0 || gpus[i].cc > 0);
	return all;
}

static int set_ready(const char *value)
{
	if (!value || (strcmp(value, "0") && strcmp(value, "1")))
		return fail(EXIT_INVALID, "Invalid value for the ready state: expected 0 or 1");
	if (!is_confidential())
		return fail(EXIT_UNSUPPORTED, "Unable to set Confidential Compute GPUs ready state: Not Supported");
	if (!write_text(READY_STATE, value, 0600))
		return fail(EXIT_UNSUPPORTED, "Unable to set Confidential Compute GPUs ready state: Unknown Error");
	printf("Successfully set Confidential Compute GPUs ready state to %s\n", *value == '1' ? "ready" : "not-ready");
	return 0;
}

static int confidential(int argc, char **argv)
{
	char state[8] = "0";

	if (has_option(argc, argv, "-srs") || has_option(argc, argv, "--set-gpus-ready-state"))
		return set_ready(option(argc, argv, "-srs") ?: option(argc, argv, "--set-gpus-ready-state"));
	if (has_option(argc, argv, "-f") || has_option(argc, argv, "--get-cc-feature")) {
		printf("CC status: %s\n", is_confidential() ? "ON" : "OFF");
		return 0;
	}
	if (has_option(argc, argv, "-grs") || has_option(argc, argv, "--get-gpus-ready-state")) {
		if (!is_confidential())
			return fail(EXIT_UNSUPPORTED, "Unable to get Confidential Compute GPUs ready state: Not Supported");
		read_text(READY_STATE, state, sizeof(state));
		printf("Confidential Compute GPUs Ready state: %s\n", *state == '1' ? "ready" : "not-ready");
		return 0;
	}
	return fail(EXIT_INVALID, "nvidia-smi conf-compute: give -srs, -grs or -f");
}

static int act(int argc, char **argv)
{
	if (has_option(argc, argv, "-L") || has_option(argc, argv, "--list-gpus"))
		return list();
	if (!opened)
		return fail(EXIT_NOT_FOUND, "No devices were found");
	if (argc > 1 && !strcmp(argv[1], "conf-compute"))
		return confidential(argc, argv);
	if (has_option(argc, argv, "-lgc"))
		return set_each(option(argc, argv, "-lgc"), "GPU clocks set to \"(gpuClkMin %2$s, gpuClkMax %2$s)\" for GPU 0000%1$s\n");
	if (has_option(argc, argv, "-lmc"))
		return set_each(option(argc, argv, "-lmc"), "Memory clocks set to \"(memClkMin %2$s, memClkMax %2$s)\" for GPU 0000%1$s\n");
	if (has_option(argc, argv, "-pl"))
		return set_each(option(argc, argv, "-pl"), "Power limit for GPU 0000%1$s was set to %2$s.00 W from 700.00 W.\n");
	if (has_option(argc, argv, "-pm"))
		return set_each(option(argc, argv, "-pm"), "Set persistence mode to %2$s for GPU 0000%1$s.\n");
	printf("NVIDIA-SMI (stand-in of nvrc-lab): %d of %d GPUs\n", opened, gpu_count);
	return 0;
}

int smi_main(int argc, char **argv)
{
	openlog("nvidia-smi", LOG_PID, LOG_DAEMON);
	suffer_early_faults();
	gpu_count = list_gpus(gpus);
	if (gpu_count < 0)
		return fail(EXIT_NO_DRIVER, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
					    "Make sure that the latest NVIDIA driver is installed and running.");
	opened = open_all(gpus, gpu_count);
	return act(argc, argv);
}
