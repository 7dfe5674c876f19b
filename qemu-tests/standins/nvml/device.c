/* SPDX-License-Identifier: Apache-2.0 */
/* Entry points about one GPU: identity, memory, clocks, power, fabric. Indices count the GPUs that attached. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "calls.h"

static struct gpu *attached(unsigned index)
{
	for (unsigned i = 0; i < machine.gpu_count; i++)
		if (machine.gpus[i].attached && index-- == 0)
			return &machine.gpus[i];
	return NULL;
}

EXPORT int nvmlDeviceGetCount_v2(unsigned *count)
{
	CALL(NO_GPU, -1, "%s", "");
	for (*count = 0; attached(*count); ++*count)
		;
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device)
{
	CALL((int)index, -1, "%s", "");
	NEED(attached(index), NVML_ERROR_INVALID_ARGUMENT);
	*device = attached(index);
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device)
{
	CALL(NO_GPU, -1, "uuid=%s", uuid);
	for (struct gpu *gpu = machine.gpus; gpu < machine.gpus + machine.gpu_count; gpu++) {
		*device = gpu;
		if (gpu->attached && strcmp(gpu->uuid, uuid) == 0)
			DONE(NVML_SUCCESS);
		for (struct mig_device *mig = gpu->migs; mig < gpu->migs + MAX_MIG; mig++) {
			*device = &mig->as_device;
			if (gpu->attached && mig->present && strcmp(mig->uuid, uuid) == 0)
				DONE(NVML_SUCCESS);
		}
	}
	DONE(NVML_ERROR_NOT_FOUND);
}

EXPORT int nvmlDeviceGetHandleByPciBusId_v2(const char *text, nvmlDevice_t *device)
{
	unsigned domain, bus, slot;

	CALL(NO_GPU, -1, "bus=%s", text);
	NEED(sscanf(text, "%x:%x:%x", &domain, &bus, &slot) == 3, NVML_ERROR_INVALID_ARGUMENT);
	for (struct gpu *gpu = machine.gpus; gpu < machine.gpus + machine.gpu_count; gpu++)
		if (gpu->attached && gpu->domain == domain && gpu->bus == bus && gpu->device == slot) {
			*device = gpu;
			DONE(NVML_SUCCESS);
		}
	DONE(NVML_ERROR_NOT_FOUND);
}

static int give(const char *text, char *buffer, unsigned size)
{
	if (strlen(text) >= size)
		return NVML_ERROR_INSUFFICIENT_SIZE;
	memcpy(buffer, text, strlen(text) + 1);
	return NVML_SUCCESS;
}

EXPORT int nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned length)
{
	DEVICE_CALL(device, "%s", "");
	DONE(give(gpu->name, name, length));
}

EXPORT int nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned length)
{
	DEVICE_CALL(device, "%s", "");
	DONE(give(mig_of(device) ? mig_of(device)->uuid : gpu->uuid, uuid, length));
}

EXPORT int nvmlDeviceGetSerial(nvmlDevice_t device, char *serial, unsigned length)
{
	DEVICE_CALL(device, "%s", "");
	DONE(give(gpu->serial, serial, length));
}

EXPORT int nvmlDeviceGetBoardPartNumber(nvmlDevice_t device, char *part, unsigned length)
{
	DEVICE_CALL(device, "%s", "");
	DONE(give(gpu->part, part, length));
}

EXPORT int nvmlDeviceGetVbiosVersion(nvmlDevice_t device, char *version, unsigned length)
{
	DEVICE_CALL(device, "%s", "");
	DONE(give(gpu->vbios, version, length));
}

EXPORT int nvmlDeviceGetIndex(nvmlDevice_t device, unsigned *index)
{
	DEVICE_CALL(device, "%s", "");
	for (*index = 0; attached(*index) && attached(*index) != gpu; ++*index)
		;
	if (mig_of(device))
		*index = (unsigned)mig_number(device);
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned *minor)
{
	DEVICE_CALL(device, "%s", "");
	NEED(!mig_of(device), NVML_ERROR_NOT_SUPPORTED);
	*minor = gpu->minor;
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, struct pci_info *pci)
{
	DEVICE_CALL(device, "%s", "");
	*pci = (struct pci_info){ .domain = gpu->domain, .bus = gpu->bus, .device = gpu->device,
		.pci_device_id = gpu->pci_device_id, .pci_subsystem_id = gpu->pci_subsystem_id };
	snprintf(pci->bus_id, sizeof pci->bus_id, "%08X:%02X:%02X.0", gpu->domain, gpu->bus, gpu->device);
	snprintf(pci->bus_id_legacy, sizeof pci->bus_id_legacy, "%04X:%02X:%02X.0", gpu->domain & 0xffff, gpu->bus & 0xff,
		gpu->device & 0xff);
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor)
{
	DEVICE_CALL(device, "%s", "");
	*major = (int)gpu->capability[0];
	*minor = (int)gpu->capability[1];
	DONE(NVML_SUCCESS);
}

static unsigned long long memory_of(const struct gpu *gpu, const struct mig_device *mig)
{
	if (mig == NULL)
		return gpu->memory;
	for (const struct gpu_instance *gi = gpu->instances; gi < gpu->instances + MAX_MIG; gi++)
		if (gi->present && gi->id == mig->gi)
			return gpu->memory * gi->placement.size / MIG_SLICES;
	return 0;
}

/* The GPU's own; nothing is known of how it is divided. */
static unsigned long long used_of(const struct gpu *gpu, const struct mig_device *mig, unsigned long long total)
{
	return mig ? 0 : gpu->used < total ? gpu->used : total;
}

EXPORT int nvmlDeviceGetMemoryInfo(nvmlDevice_t device, struct memory_info *memory)
{
	DEVICE_CALL(device, "%s", "");
	unsigned long long total = memory_of(gpu, mig_of(device)), used = used_of(gpu, mig_of(device), total);
	*memory = (struct memory_info){ total, total - used, used };
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, struct memory_info_v2 *memory)
{
	DEVICE_CALL(device, "%s", "");
	unsigned long long total = memory_of(gpu, mig_of(device)), used = used_of(gpu, mig_of(device), total);
	NEED(memory->version == STRUCT_VERSION(*memory, 2), NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
	*memory = (struct memory_info_v2){ memory->version, total, 0, total - used, used };
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceGetConfComputeMemSizeInfo(nvmlDevice_t device, struct cc_memory *memory)
{
	DEVICE_CALL(device, "%s", "");
	NEED(machine.cc_supported, NVML_ERROR_NOT_SUPPORTED);
	*memory = (struct cc_memory){ gpu->cc ? gpu->memory >> 10 : 0, gpu->cc ? 0 : gpu->memory >> 10 };
	DONE(NVML_SUCCESS);
}

/* Nobody issued it; that it is another one for each GPU is what it is for. The attestation agent's stand-in has the same. */
#define CERTIFICATE "-----BEGIN CERTIFICATE-----\n%s\n-----END CERTIFICATE-----\n"

EXPORT int nvmlDeviceGetConfComputeGpuCertificate(nvmlDevice_t device, struct cc_certificate *certificate)
{
	DEVICE_CALL(device, "%s", "");
	NEED(gpu->cc, NVML_ERROR_NOT_SUPPORTED);
	memset(certificate, 0, sizeof *certificate);
	int size = snprintf((char *)certificate->attestation, sizeof certificate->attestation, CERTIFICATE, gpu->uuid);
	certificate->attestation_size = (unsigned)size;
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceGetConfComputeProtectedMemoryUsage(nvmlDevice_t device, struct memory_info *memory)
{
	DEVICE_CALL(device, "%s", "");
	NEED(machine.cc_supported, NVML_ERROR_NOT_SUPPORTED);
	*memory = (struct memory_info){ gpu->cc ? gpu->memory : 0, gpu->cc ? gpu->memory : 0, 0 };
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceGetPersistenceMode(nvmlDevice_t device, unsigned *mode)
{
	DEVICE_CALL(device, "%s", "");
	*mode = gpu->persistence;
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceSetPersistenceMode(nvmlDevice_t device, unsigned mode)
{
	DEVICE_CALL(device, "mode=%u", mode);
	NEED(mode <= 1, NVML_ERROR_INVALID_ARGUMENT);
	gpu->persistence = mode;
	machine_save();
	DONE(NVML_SUCCESS);
}

/* An idle GPU runs at its idle clock, or at the nearest end of the locked range. */
static unsigned within(unsigned clock, const unsigned *range)
{
	if (range[1] == 0)
		return clock;
	return clock < range[0] ? range[0] : clock > range[1] ? range[1] : clock;
}

static unsigned lowest_memory(const struct gpu *gpu)
{
	return gpu->memory_mhz[gpu->memory_clocks - 1];
}

EXPORT int nvmlDeviceGetClockInfo(nvmlDevice_t device, unsigned type, unsigned *mhz)
{
	DEVICE_CALL(device, "type=%u", type);
	NEED(type < CLOCK_COUNT, NVML_ERROR_INVALID_ARGUMENT);
	*mhz = type == CLOCK_MEM ? within(gpu->memory_mhz[0], gpu->locked_memory) : within(gpu->idle_mhz, gpu->locked_graphics);
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, unsigned type, unsigned *mhz)
{
	DEVICE_CALL(device, "type=%u", type);
	NEED(type < CLOCK_COUNT, NVML_ERROR_INVALID_ARGUMENT);
	*mhz = type == CLOCK_MEM ? gpu->memory_mhz[0] : gpu->graphics_mhz[1];
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceGetSupportedMemoryClocks(nvmlDevice_t device, unsigned *count, unsigned *clocks)
{
	DEVICE_CALL(device, "%s", "");
	unsigned room = *count;

	*count = gpu->memory_clocks;
	NEED(clocks != NULL && room >= gpu->memory_clocks, NVML_ERROR_INSUFFICIENT_SIZE);
	memcpy(clocks, gpu->memory_mhz, gpu->memory_clocks * sizeof *clocks);
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceGetSupportedGraphicsClocks(nvmlDevice_t device, unsigned memory_mhz, unsigned *count, unsigned *clocks)
{
	DEVICE_CALL(device, "memory=%u", memory_mhz);
	unsigned room = *count, listed = 0;

	while (listed < gpu->memory_clocks && gpu->memory_mhz[listed] != memory_mhz)
		listed++;
	NEED(listed < gpu->memory_clocks, NVML_ERROR_NOT_FOUND);
	*count = (gpu->graphics_mhz[1] - gpu->graphics_mhz[0]) / gpu->step_mhz + 1;
	NEED(clocks != NULL && room >= *count, NVML_ERROR_INSUFFICIENT_SIZE);
	for (unsigned i = 0; i < *count; i++)
		clocks[i] = gpu->graphics_mhz[1] - i * gpu->step_mhz;
	DONE(NVML_SUCCESS);
}

/* Down to a multiple of the step, counted from the lowest clock, and not out of the range. */
static unsigned supported(const struct gpu *gpu, unsigned mhz)
{
	if (mhz <= gpu->graphics_mhz[0])
		return gpu->graphics_mhz[0];
	if (mhz >= gpu->graphics_mhz[1])
		return gpu->graphics_mhz[1];
	return mhz - (mhz - gpu->graphics_mhz[0]) % gpu->step_mhz;
}

EXPORT int nvmlDeviceSetGpuLockedClocks(nvmlDevice_t device, unsigned low, unsigned high)
{
	DEVICE_CALL(device, "min=%u max=%u", low, high);
	NEED(low <= high && high >= gpu->graphics_mhz[0] && low <= gpu->graphics_mhz[1], NVML_ERROR_INVALID_ARGUMENT);
	gpu->locked_graphics[0] = supported(gpu, low);
	gpu->locked_graphics[1] = supported(gpu, high);
	machine_save();
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceResetGpuLockedClocks(nvmlDevice_t device)
{
	DEVICE_CALL(device, "%s", "");
	gpu->locked_graphics[0] = gpu->locked_graphics[1] = 0;
	machine_save();
	DONE(NVML_SUCCESS);
}

static unsigned nearest_memory(const struct gpu *gpu, unsigned mhz)
{
	for (unsigned i = 0; i < gpu->memory_clocks; i++)
		if (gpu->memory_mhz[i] <= mhz)
			return gpu->memory_mhz[i];
	return lowest_memory(gpu);
}

EXPORT int nvmlDeviceSetMemoryLockedClocks(nvmlDevice_t device, unsigned low, unsigned high)
{
	DEVICE_CALL(device, "min=%u max=%u", low, high);
	NEED(low <= high && high >= lowest_memory(gpu) && low <= gpu->memory_mhz[0], NVML_ERROR_INVALID_ARGUMENT);
	gpu->locked_memory[0] = nearest_memory(gpu, low);
	gpu->locked_memory[1] = nearest_memory(gpu, high);
	machine_save();
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceResetMemoryLockedClocks(nvmlDevice_t device)
{
	DEVICE_CALL(device, "%s", "");
	gpu->locked_memory[0] = gpu->locked_memory[1] = 0;
	machine_save();
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceGetPowerManagementLimit(nvmlDevice_t device, unsigned *milliwatts)
{
	DEVICE_CALL(device, "%s", "");
	*milliwatts = gpu->power_limit_mw;
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, unsigned *milliwatts)
{
	DEVICE_CALL(device, "%s", "");
	*milliwatts = gpu->power_limit_mw;
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceGetPowerManagementDefaultLimit(nvmlDevice_t device, unsigned *milliwatts)
{
	DEVICE_CALL(device, "%s", "");
	*milliwatts = gpu->power_default_mw;
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceGetPowerManagementLimitConstraints(nvmlDevice_t device, unsigned *low, unsigned *high)
{
	DEVICE_CALL(device, "%s", "");
	*low = gpu->power_mw[0];
	*high = gpu->power_mw[1];
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceSetPowerManagementLimit(nvmlDevice_t device, unsigned milliwatts)
{
	DEVICE_CALL(device, "milliwatts=%u", milliwatts);
	NEED(milliwatts >= gpu->power_mw[0] && milliwatts <= gpu->power_mw[1], NVML_ERROR_INVALID_ARGUMENT);
	gpu->power_limit_mw = milliwatts;
	machine_save();
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned *milliwatts)
{
	DEVICE_CALL(device, "%s", "");
	*milliwatts = gpu->draw_mw;
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceGetTemperature(nvmlDevice_t device, unsigned sensor, unsigned *celsius)
{
	DEVICE_CALL(device, "sensor=%u", sensor);
	NEED(sensor == 0, NVML_ERROR_INVALID_ARGUMENT);
	*celsius = gpu->celsius;
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceGetUtilizationRates(nvmlDevice_t device, struct utilization *percent)
{
	DEVICE_CALL(device, "%s", "");
	NEED(!mig_of(device) && gpu->mig != MIG_ON, NVML_ERROR_NOT_SUPPORTED);
	*percent = (struct utilization){ gpu->busy[0], gpu->busy[1] };
	DONE(NVML_SUCCESS);
}

/* One set of counters for both kinds: nothing here lives long enough for an aggregate of its own. */
EXPORT int nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, unsigned type, unsigned counter, unsigned long long *count)
{
	DEVICE_CALL(device, "type=%u counter=%u", type, counter);
	NEED(type < ECC_COUNT && counter < ECC_COUNTERS, NVML_ERROR_INVALID_ARGUMENT);
	*count = gpu->ecc[type];
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceGetGpuFabricInfo(nvmlDevice_t device, struct fabric_info *info)
{
	DEVICE_CALL(device, "%s", "");
	*info = (struct fabric_info){ { 0 }, gpu->fabric_status, gpu->fabric_clique, gpu->fabric };
	memcpy(info->cluster, gpu->fabric_cluster, sizeof info->cluster);
	DONE(NVML_SUCCESS);
}

/* Version 3 is version 2 with a summary behind it. */
EXPORT int nvmlDeviceGetGpuFabricInfoV(nvmlDevice_t device, struct fabric_info_v3 *info)
{
	DEVICE_CALL(device, "%s", "");
	bool third = info->version == STRUCT_VERSION(struct fabric_info_v3, 3);
	NEED(third || info->version == STRUCT_VERSION(struct fabric_info_v2, 2), NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
	memcpy(info->cluster, gpu->fabric_cluster, sizeof info->cluster);
	info->status = gpu->fabric_status;
	info->clique = gpu->fabric_clique;
	info->state = gpu->fabric;
	info->health = gpu->fabric_health;
	if (third)
		info->summary = (uint8_t)gpu->fabric_summary;
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceGetNvLinkState(nvmlDevice_t device, unsigned link, unsigned *active)
{
	DEVICE_CALL(device, "link=%u", link);
	NEED(link < MAX_LINKS, NVML_ERROR_INVALID_ARGUMENT);
	NEED(gpu->nvlinks, NVML_ERROR_NOT_SUPPORTED);
	*active = link + gpu->nvlinks_down < gpu->nvlinks;
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceGetNvLinkRemoteDeviceType(nvmlDevice_t device, unsigned link, unsigned *type)
{
	DEVICE_CALL(device, "link=%u", link);
	NEED(link < gpu->nvlinks, NVML_ERROR_INVALID_ARGUMENT);
	*type = NVLINK_SWITCH;
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceGetP2PStatus(nvmlDevice_t device, nvmlDevice_t other, unsigned capability, unsigned *status)
{
	DEVICE_CALL(device, "capability=%u", capability);
	struct gpu *peer = gpu_of(other);

	NEED(peer && capability < P2P_CAPABILITIES, NVML_ERROR_INVALID_ARGUMENT);
	bool linked = gpu->nvlinks && peer->nvlinks && gpu->fabric == FABRIC_COMPLETED && peer->fabric == FABRIC_COMPLETED;
	*status = linked ? P2P_OK : capability == P2P_NVLINK ? P2P_NOT_SUPPORTED : gpu->p2p;
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceGetTopologyCommonAncestor(nvmlDevice_t device, nvmlDevice_t other, unsigned *level)
{
	DEVICE_CALL(device, "%s", "");
	NEED(gpu_of(other), NVML_ERROR_INVALID_ARGUMENT);
	*level = TOPOLOGY_HOST_BRIDGE;
	DONE(NVML_SUCCESS);
}
