/* SPDX-License-Identifier: Apache-2.0 */
/* Start and stop, versions, and confidential computing, which NVML holds for the whole system. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "calls.h"

static int control_fd = -1;

static int open_node(const char *name)
{
	char path[PATH_MAX + 32];

	snprintf(path, sizeof path, "%s/%s", machine.nodes, name);
	return open(path, O_RDWR | O_CLOEXEC);
}

/*
 * With `nodes DIR` the library holds nvidiactl and every GPU's node open from init to shutdown, as the real one does.
 * A GPU whose node cannot be opened is not enumerated: on the real driver that is a GPU that failed to attach.
 */
static int attach(void)
{
	char name[32];

	for (unsigned i = 0; i < machine.gpu_count; i++)
		machine.gpus[i].attached = true;
	if (*machine.nodes == '\0')
		return NVML_SUCCESS;
	control_fd = open_node("nvidiactl");
	if (control_fd < 0)
		return errno == EACCES || errno == EPERM ? NVML_ERROR_NO_PERMISSION : NVML_ERROR_DRIVER_NOT_LOADED;
	for (unsigned i = 0; i < machine.gpu_count; i++) {
		snprintf(name, sizeof name, "nvidia%u", machine.gpus[i].minor);
		machine.gpus[i].node_fd = open_node(name);
		machine.gpus[i].attached = machine.gpus[i].node_fd >= 0;
	}
	return NVML_SUCCESS;
}

static void detach(void)
{
	if (control_fd >= 0)
		close(control_fd);
	control_fd = -1;
	for (unsigned i = 0; i < machine.gpu_count; i++) {
		if (machine.gpus[i].node_fd >= 0)
			close(machine.gpus[i].node_fd);
		machine.gpus[i].node_fd = -1;
	}
}

/* As the real one clears its table of GPUs: pages of its own from then on, with nothing in them. */
static void clear_table(void)
{
	static char table[MAX_TABLE << 20];

	explicit_bzero(table, (size_t)machine.table << 20);
}

static int start(struct call *call)
{
	int code = call->answer;

	if (code == GO_ON && init_count == 0)
		clear_table();
	if (code == GO_ON)
		code = init_count == 0 ? attach() : NVML_SUCCESS;
	if (code == NVML_SUCCESS)
		init_count++;
	return call_end(call, code);
}

EXPORT int nvmlInitWithFlags(unsigned flags)
{
	struct call call = call_begin(__func__, NO_GPU, -1, false, "flags=%u", flags);

	return start(&call);
}

EXPORT int nvmlInit_v2(void)
{
	struct call call = call_begin(__func__, NO_GPU, -1, false, "%s", "");

	return start(&call);
}

EXPORT int nvmlInit(void)
{
	struct call call = call_begin(__func__, NO_GPU, -1, false, "%s", "");

	return start(&call);
}

EXPORT int nvmlShutdown(void)
{
	CALL(NO_GPU, -1, "%s", "");
	if (--init_count == 0)
		detach();
	DONE(NVML_SUCCESS);
}

/* Not logged: it is a table, and the real one may be called before init too. */
EXPORT const char *nvmlErrorString(int code)
{
	static const struct { int code; const char *text; } TEXTS[] = {
		{ NVML_SUCCESS, "Success" }, { NVML_ERROR_UNINITIALIZED, "Uninitialized" },
		{ NVML_ERROR_INVALID_ARGUMENT, "Invalid Argument" }, { NVML_ERROR_NOT_SUPPORTED, "Not Supported" },
		{ NVML_ERROR_NO_PERMISSION, "Insufficient Permissions" }, { NVML_ERROR_NOT_FOUND, "Not Found" },
		{ NVML_ERROR_INSUFFICIENT_SIZE, "Insufficient Size" }, { NVML_ERROR_DRIVER_NOT_LOADED, "Driver Not Loaded" },
		{ 15, "GPU is lost" }, { NVML_ERROR_RESET_REQUIRED, "GPU requires reset" },
		{ 18, "Driver/library version mismatch" }, { NVML_ERROR_IN_USE, "In use by another client" },
		{ NVML_ERROR_INSUFFICIENT_RESOURCES, "Insufficient Resources" },
		{ NVML_ERROR_ARGUMENT_VERSION_MISMATCH, "Argument version mismatch" },
	};

	for (unsigned i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++)
		if (TEXTS[i].code == code)
			return TEXTS[i].text;
	return "Unknown Error";
}

static int give(const char *text, char *buffer, unsigned size)
{
	if (strlen(text) >= size)
		return NVML_ERROR_INSUFFICIENT_SIZE;
	memcpy(buffer, text, strlen(text) + 1);
	return NVML_SUCCESS;
}

EXPORT int nvmlSystemGetDriverVersion(char *version, unsigned length)
{
	CALL(NO_GPU, -1, "%s", "");
	DONE(give(machine.driver, version, length));
}

EXPORT int nvmlSystemGetNVMLVersion(char *version, unsigned length)
{
	CALL(NO_GPU, -1, "%s", "");
	DONE(give(*machine.nvml ? machine.nvml : machine.driver, version, length));
}

static int cuda_version(struct call *call, int *version)
{
	if (call->answer == GO_ON)
		*version = machine.cuda ? (int)machine.cuda : 13000;
	return call_end(call, call->answer == GO_ON ? NVML_SUCCESS : call->answer);
}

EXPORT int nvmlSystemGetCudaDriverVersion(int *version)
{
	struct call call = call_begin(__func__, NO_GPU, -1, false, "%s", "");

	return cuda_version(&call, version);
}

EXPORT int nvmlSystemGetCudaDriverVersion_v2(int *version)
{
	struct call call = call_begin(__func__, NO_GPU, -1, false, "%s", "");

	return cuda_version(&call, version);
}

EXPORT int nvmlSystemGetConfComputeCapabilities(struct cc_capabilities *capabilities)
{
	CALL(NO_GPU, -1, "%s", "");
	NEED(machine.cc_supported, NVML_ERROR_NOT_SUPPORTED);
	*capabilities = (struct cc_capabilities){ machine.cpu, machine.gpus_capable };
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlSystemGetConfComputeState(struct cc_state *state)
{
	CALL(NO_GPU, -1, "%s", "");
	NEED(machine.cc_supported, NVML_ERROR_NOT_SUPPORTED);
	*state = (struct cc_state){ machine.environment, machine.feature, machine.devtools };
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlSystemGetConfComputeSettings(struct cc_settings *settings)
{
	CALL(NO_GPU, -1, "%s", "");
	NEED(machine.cc_supported, NVML_ERROR_NOT_SUPPORTED);
	NEED(settings->version == STRUCT_VERSION(*settings, 1), NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
	*settings = (struct cc_settings){ settings->version, machine.environment, machine.feature, machine.devtools,
		machine.multigpu };
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlSystemGetConfComputeGpusReadyState(unsigned *ready)
{
	CALL(NO_GPU, -1, "%s", "");
	NEED(machine.cc_supported, NVML_ERROR_NOT_SUPPORTED);
	*ready = machine.ready;
	DONE(NVML_SUCCESS);
}

/* Both structures: version, then the number. */
EXPORT int nvmlSystemSetConfComputeKeyRotationThresholdInfo(const struct nvml_key_rotation *info)
{
	CALL(NO_GPU, -1, "advantage=%llu", info->advantage);
	NEED(info->version == NVML_KEY_ROTATION_V1, NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
	NEED(machine.cc_supported && machine.feature == 1, NVML_ERROR_NOT_SUPPORTED);
	NEED(!machine.ready, NVML_ERROR_INVALID_STATE);
	NEED(info->advantage >= 50 && info->advantage <= 65, NVML_ERROR_INVALID_ARGUMENT);
	machine.key_rotation = info->advantage;
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlSystemGetConfComputeKeyRotationThresholdInfo(struct nvml_key_rotation *info)
{
	CALL(NO_GPU, -1, "%s", "");
	NEED(info->version == NVML_KEY_ROTATION_V1, NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
	NEED(machine.cc_supported && machine.feature == 1, NVML_ERROR_NOT_SUPPORTED);
	info->advantage = machine.key_rotation;
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlSystemSetConfComputeGpusReadyState(unsigned ready)
{
	CALL(NO_GPU, -1, "state=%u", ready);
	NEED(machine.cc_supported && machine.feature == 1, NVML_ERROR_NOT_SUPPORTED);
	NEED(ready <= 1, NVML_ERROR_INVALID_ARGUMENT);
	machine.ready = ready;
	machine_save();
	DONE(NVML_SUCCESS);
}
