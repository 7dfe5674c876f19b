/* SPDX-License-Identifier: Apache-2.0 */
/* MIG: the entry points about it. */
#include <stdio.h>
#include <string.h>

#include "calls.h"

/* Handles of instances point into the tables; a handle of a destroyed instance is none. */
static struct gpu_instance *instance_of(nvmlGpuInstance_t handle, struct gpu **gpu)
{
	for (*gpu = machine.gpus; *gpu < machine.gpus + machine.gpu_count; ++*gpu)
		for (struct gpu_instance *gi = (*gpu)->instances; gi < (*gpu)->instances + MAX_MIG; gi++)
			if (handle == gi)
				return gi->present ? gi : NULL;
	return NULL;
}

static struct mig_device *compute_of(nvmlComputeInstance_t handle, struct gpu **gpu)
{
	for (*gpu = machine.gpus; *gpu < machine.gpus + machine.gpu_count; ++*gpu)
		for (struct mig_device *mig = (*gpu)->migs; mig < (*gpu)->migs + MAX_MIG; mig++)
			if (handle == &mig->as_instance)
				return mig->present ? mig : NULL;
	return NULL;
}

static struct gpu_instance *instance_by_id(struct gpu *gpu, unsigned id)
{
	for (struct gpu_instance *gi = gpu->instances; gi < gpu->instances + MAX_MIG; gi++)
		if (gi->present && gi->id == id)
			return gi;
	return NULL;
}

static int number_of(const struct gpu_instance *gi, const struct gpu *gpu)
{
	return gi ? (int)gpu_index(gpu) : NO_GPU;
}

#define INSTANCE_CALL(handle, format, ...) \
	struct gpu *gpu; \
	struct gpu_instance *gi = instance_of(handle, &gpu); \
	CALL(number_of(gi, gpu), -1, "gi=%d" format, gi ? (int)gi->id : -1, __VA_ARGS__); \
	NEED(gi != NULL, NVML_ERROR_INVALID_ARGUMENT)

#define COMPUTE_CALL(handle) \
	struct gpu *gpu; \
	struct mig_device *ci = compute_of(handle, &gpu); \
	CALL(ci ? (int)gpu_index(gpu) : NO_GPU, -1, "gi=%d ci=%d", ci ? (int)ci->gi : -1, ci ? (int)ci->ci : -1); \
	NEED(ci != NULL, NVML_ERROR_INVALID_ARGUMENT)

EXPORT int nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned *current, unsigned *pending)
{
	DEVICE_CALL(device, "%s", "");
	NEED(gpu->mig != MIG_UNSUPPORTED, NVML_ERROR_NOT_SUPPORTED);
	*current = gpu->mig;
	*pending = gpu->mig_pending;
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceSetMigMode(nvmlDevice_t device, unsigned mode, unsigned *activation)
{
	DEVICE_CALL(device, "mode=%u", mode);
	NEED(gpu->mig != MIG_UNSUPPORTED, NVML_ERROR_NOT_SUPPORTED);
	NEED(mode <= MIG_ON, NVML_ERROR_INVALID_ARGUMENT);
	NEED(mode == MIG_ON || mig_memory_used(gpu) == 0, NVML_ERROR_IN_USE);
	gpu->mig_pending = mode;
	*activation = gpu->mig_needs_reset && gpu->mig != mode ? NVML_ERROR_RESET_REQUIRED : NVML_SUCCESS;
	if (*activation == NVML_SUCCESS)
		gpu->mig = mode;
	machine_save();
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned *count)
{
	DEVICE_CALL(device, "%s", "");
	*count = gpu->mig == MIG_ON ? mig_limit(gpu) : 0;
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned index, nvmlDevice_t *handle)
{
	DEVICE_CALL(device, "index=%u", index);
	NEED(gpu->mig == MIG_ON, NVML_ERROR_NOT_SUPPORTED);
	NEED(index < mig_limit(gpu), NVML_ERROR_INVALID_ARGUMENT);
	NEED(gpu->migs[index].present, NVML_ERROR_NOT_FOUND);
	*handle = &gpu->migs[index].as_device;
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t device, nvmlDevice_t *parent)
{
	DEVICE_CALL(device, "%s", "");
	NEED(mig_of(device), NVML_ERROR_INVALID_ARGUMENT);
	*parent = gpu;
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned *is_mig)
{
	DEVICE_CALL(device, "%s", "");
	*is_mig = mig_of(device) != NULL;
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceGetGpuInstanceId(nvmlDevice_t device, unsigned *id)
{
	DEVICE_CALL(device, "%s", "");
	NEED(mig_of(device), NVML_ERROR_NOT_SUPPORTED);
	*id = mig_of(device)->gi;
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceGetComputeInstanceId(nvmlDevice_t device, unsigned *id)
{
	DEVICE_CALL(device, "%s", "");
	NEED(mig_of(device), NVML_ERROR_NOT_SUPPORTED);
	*id = mig_of(device)->ci;
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceGetAttributes_v2(nvmlDevice_t device, struct device_attributes *attributes)
{
	DEVICE_CALL(device, "%s", "");
	struct mig_device *mig = mig_of(device);
	NEED(mig != NULL, NVML_ERROR_NOT_SUPPORTED);
	const struct mig_profile *profile = mig_profile_by_enum(gpu, instance_by_id(gpu, mig->gi)->profile);
	unsigned slices = ci_slices(mig->profile);

	*attributes = (struct device_attributes){ profile->sm * slices / profile->slices, profile->copy, profile->decoders, 0,
		profile->jpeg, profile->ofa, profile->slices, slices, mig_memory_mb(gpu, profile) };
	DONE(NVML_SUCCESS);
}

static struct gi_profile_info gi_profile_info(const struct gpu *gpu, const struct mig_profile *profile)
{
	return (struct gi_profile_info){ profile->id, 0, profile->slices, profile->instances, profile->sm, profile->copy,
		profile->decoders, 0, profile->jpeg, profile->ofa, mig_memory_mb(gpu, profile) };
}

static int fill_gi_profile(const struct gpu *gpu, const struct mig_profile *profile, struct gi_profile_info_v2 *info)
{
	char name[80];

	if (info->version != STRUCT_VERSION(*info, 2))
		return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
	mig_profile_name(gpu, profile, name, sizeof name);
	*info = (struct gi_profile_info_v2){ info->version, profile->id, 0, profile->slices, profile->instances, profile->sm,
		profile->copy, profile->decoders, 0, profile->jpeg, profile->ofa, mig_memory_mb(gpu, profile), "" };
	snprintf(info->name, sizeof info->name, "MIG %s", name);
	return NVML_SUCCESS;
}

EXPORT int nvmlDeviceGetGpuInstanceProfileInfo(nvmlDevice_t device, unsigned profile, struct gi_profile_info *info)
{
	DEVICE_CALL(device, "profile=%u", profile);
	NEED(gpu->mig != MIG_UNSUPPORTED, NVML_ERROR_NOT_SUPPORTED);
	NEED(profile < GI_PROFILES, NVML_ERROR_INVALID_ARGUMENT);
	NEED(mig_profile_by_enum(gpu, profile), NVML_ERROR_NOT_SUPPORTED);
	*info = gi_profile_info(gpu, mig_profile_by_enum(gpu, profile));
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceGetGpuInstanceProfileInfoV(nvmlDevice_t device, unsigned profile, struct gi_profile_info_v2 *info)
{
	DEVICE_CALL(device, "profile=%u", profile);
	NEED(gpu->mig != MIG_UNSUPPORTED, NVML_ERROR_NOT_SUPPORTED);
	NEED(profile < GI_PROFILES, NVML_ERROR_INVALID_ARGUMENT);
	NEED(mig_profile_by_enum(gpu, profile), NVML_ERROR_NOT_SUPPORTED);
	DONE(fill_gi_profile(gpu, mig_profile_by_enum(gpu, profile), info));
}

EXPORT int nvmlDeviceGetGpuInstanceProfileInfoByIdV(nvmlDevice_t device, unsigned id, struct gi_profile_info_v2 *info)
{
	DEVICE_CALL(device, "id=%u", id);
	NEED(gpu->mig != MIG_UNSUPPORTED && mig_profile_by_id(gpu, id), NVML_ERROR_NOT_SUPPORTED);
	DONE(fill_gi_profile(gpu, mig_profile_by_id(gpu, id), info));
}

EXPORT int nvmlDeviceGetGpuInstanceRemainingCapacity(nvmlDevice_t device, unsigned id, unsigned *count)
{
	DEVICE_CALL(device, "id=%u", id);
	NEED(gpu->mig == MIG_ON && mig_profile_by_id(gpu, id), NVML_ERROR_NOT_SUPPORTED);
	*count = 0;
	for (unsigned start = 0; start < MIG_SLICES; start++)
		*count += mig_fits(gpu, mig_profile_by_id(gpu, id), start);
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceGetGpuInstancePossiblePlacements_v2(nvmlDevice_t device, unsigned id, struct placement *list, unsigned *count)
{
	DEVICE_CALL(device, "id=%u", id);
	const struct mig_profile *profile = mig_profile_by_id(gpu, id);
	NEED(gpu->mig == MIG_ON && profile, NVML_ERROR_NOT_SUPPORTED);
	unsigned room = list ? *count : 0, possible = MIG_SLICES / profile->size;

	possible = possible < profile->instances ? possible : profile->instances;
	*count = possible;
	if (list == NULL)
		DONE(NVML_SUCCESS);
	NEED(room >= possible, NVML_ERROR_INSUFFICIENT_SIZE);
	for (unsigned i = 0; i < possible; i++)
		list[i] = (struct placement){ i * profile->size, profile->size };
	DONE(NVML_SUCCESS);
}

static int create(struct gpu *gpu, unsigned id, int start, nvmlGpuInstance_t *instance)
{
	if (gpu->mig != MIG_ON || mig_profile_by_id(gpu, id) == NULL)
		return NVML_ERROR_NOT_SUPPORTED;
	*instance = mig_place(gpu, mig_profile_by_id(gpu, id), start);
	if (*instance == NULL)
		return NVML_ERROR_INSUFFICIENT_RESOURCES;
	machine_save();
	return NVML_SUCCESS;
}

EXPORT int nvmlDeviceCreateGpuInstance(nvmlDevice_t device, unsigned id, nvmlGpuInstance_t *instance)
{
	DEVICE_CALL(device, "id=%u", id);
	DONE(create(gpu, id, -1, instance));
}

EXPORT int nvmlDeviceCreateGpuInstanceWithPlacement(nvmlDevice_t device, unsigned id, const struct placement *where,
	nvmlGpuInstance_t *instance)
{
	DEVICE_CALL(device, "id=%u start=%u", id, where->start);
	NEED(where->start < MIG_SLICES, NVML_ERROR_INVALID_ARGUMENT);
	DONE(create(gpu, id, (int)where->start, instance));
}

EXPORT int nvmlGpuInstanceDestroy(nvmlGpuInstance_t instance)
{
	INSTANCE_CALL(instance, "%s", "");
	NEED(mig_slices_used(gpu, gi->id) == 0, NVML_ERROR_IN_USE);
	gi->present = false;
	machine_save();
	DONE(NVML_SUCCESS);
}

/* The caller's array has room for as many as the profile allows, as the interface demands. */
EXPORT int nvmlDeviceGetGpuInstances(nvmlDevice_t device, unsigned id, nvmlGpuInstance_t *list, unsigned *count)
{
	DEVICE_CALL(device, "id=%u", id);
	NEED(gpu->mig == MIG_ON && mig_profile_by_id(gpu, id), NVML_ERROR_NOT_SUPPORTED);
	*count = 0;
	for (struct gpu_instance *gi = gpu->instances; gi < gpu->instances + MAX_MIG; gi++)
		if (gi->present && gi->profile == mig_profile_by_id(gpu, id)->gi_enum)
			list[(*count)++] = gi;
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlDeviceGetGpuInstanceById(nvmlDevice_t device, unsigned id, nvmlGpuInstance_t *instance)
{
	DEVICE_CALL(device, "gi=%u", id);
	NEED(gpu->mig == MIG_ON, NVML_ERROR_NOT_SUPPORTED);
	*instance = instance_by_id(gpu, id);
	DONE(*instance ? NVML_SUCCESS : NVML_ERROR_NOT_FOUND);
}

EXPORT int nvmlGpuInstanceGetInfo(nvmlGpuInstance_t instance, struct gi_info *info)
{
	INSTANCE_CALL(instance, "%s", "");
	*info = (struct gi_info){ gpu, gi->id, mig_profile_by_enum(gpu, gi->profile)->id, gi->placement };
	DONE(NVML_SUCCESS);
}

/* A compute profile exists in a GPU instance where the slices divide among its instances. */
static const struct mig_profile *ci_parent(const struct gpu *gpu, const struct gpu_instance *gi, unsigned profile)
{
	const struct mig_profile *parent = mig_profile_by_enum(gpu, gi->profile);
	unsigned slices = ci_slices(profile);

	return slices != 0 && slices <= parent->slices ? parent : NULL;
}

EXPORT int nvmlGpuInstanceGetComputeInstanceProfileInfo(nvmlGpuInstance_t instance, unsigned profile, unsigned engine,
	struct ci_profile_info *info)
{
	INSTANCE_CALL(instance, " profile=%u engine=%u", profile, engine);
	const struct mig_profile *parent = ci_parent(gpu, gi, profile);
	unsigned slices = ci_slices(profile);
	NEED(profile < CI_PROFILES && engine == 0, NVML_ERROR_INVALID_ARGUMENT);
	NEED(parent, NVML_ERROR_NOT_SUPPORTED);
	*info = (struct ci_profile_info){ profile, slices, parent->slices / slices, parent->sm * slices / parent->slices,
		parent->copy, parent->decoders, 0, parent->jpeg, parent->ofa };
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlGpuInstanceGetComputeInstanceProfileInfoV(nvmlGpuInstance_t instance, unsigned profile, unsigned engine,
	struct ci_profile_info_v2 *info)
{
	INSTANCE_CALL(instance, " profile=%u engine=%u", profile, engine);
	const struct mig_profile *parent = ci_parent(gpu, gi, profile);
	unsigned slices = ci_slices(profile);
	char name[80];
	NEED(profile < CI_PROFILES && engine == 0, NVML_ERROR_INVALID_ARGUMENT);
	NEED(info->version == STRUCT_VERSION(*info, 2), NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
	NEED(parent, NVML_ERROR_NOT_SUPPORTED);
	*info = (struct ci_profile_info_v2){ info->version, profile, slices, parent->slices / slices,
		parent->sm * slices / parent->slices, parent->copy, parent->decoders, 0, parent->jpeg, parent->ofa, "" };
	mig_profile_name(gpu, parent, name, sizeof name);
	if (slices == parent->slices)
		snprintf(info->name, sizeof info->name, "MIG %s", name);
	else
		snprintf(info->name, sizeof info->name, "MIG %uc.%s", slices, name);
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlGpuInstanceGetComputeInstanceRemainingCapacity(nvmlGpuInstance_t instance, unsigned profile, unsigned *count)
{
	INSTANCE_CALL(instance, " profile=%u", profile);
	const struct mig_profile *parent = ci_parent(gpu, gi, profile);
	NEED(parent, NVML_ERROR_NOT_SUPPORTED);
	*count = (parent->slices - mig_slices_used(gpu, gi->id)) / ci_slices(profile);
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlGpuInstanceCreateComputeInstance(nvmlGpuInstance_t instance, unsigned profile, nvmlComputeInstance_t *compute)
{
	INSTANCE_CALL(instance, " profile=%u", profile);
	NEED(ci_parent(gpu, gi, profile), NVML_ERROR_NOT_SUPPORTED);
	struct mig_device *mig = mig_add(gpu, gi, -1, -1, ci_slices(profile));
	NEED(mig, NVML_ERROR_INSUFFICIENT_RESOURCES);
	*compute = &mig->as_instance;
	machine_save();
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlComputeInstanceDestroy(nvmlComputeInstance_t compute)
{
	COMPUTE_CALL(compute);
	ci->present = false;
	machine_save();
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlGpuInstanceGetComputeInstances(nvmlGpuInstance_t instance, unsigned profile, nvmlComputeInstance_t *list,
	unsigned *count)
{
	INSTANCE_CALL(instance, " profile=%u", profile);
	*count = 0;
	for (struct mig_device *mig = gpu->migs; mig < gpu->migs + MAX_MIG; mig++)
		if (mig->present && mig->gi == gi->id && mig->profile == profile)
			list[(*count)++] = &mig->as_instance;
	DONE(NVML_SUCCESS);
}

EXPORT int nvmlGpuInstanceGetComputeInstanceById(nvmlGpuInstance_t instance, unsigned id, nvmlComputeInstance_t *compute)
{
	INSTANCE_CALL(instance, " ci=%u", id);
	*compute = NULL;
	for (struct mig_device *mig = gpu->migs; mig < gpu->migs + MAX_MIG; mig++)
		if (mig->present && mig->gi == gi->id && mig->ci == id)
			*compute = &mig->as_instance;
	DONE(*compute ? NVML_SUCCESS : NVML_ERROR_NOT_FOUND);
}

EXPORT int nvmlComputeInstanceGetInfo_v2(nvmlComputeInstance_t compute, struct ci_info *info)
{
	COMPUTE_CALL(compute);
	*info = (struct ci_info){ gpu, instance_by_id(gpu, ci->gi), ci->ci, ci->profile, { 0, ci_slices(ci->profile) } };
	DONE(NVML_SUCCESS);
}
