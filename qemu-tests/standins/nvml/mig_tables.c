/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MIG: the profiles of a GPU and where instances lie. Placements and ids follow NVIDIA's published MIG tables: eight
 * memory slices and seven compute slices on data-centre GPUs, four of each on RTX PRO ones.
 */
#include <stdio.h>
#include <string.h>

#include "machine.h"

enum { FAMILIES = 2 };

/* gi_enum, id, compute slices, memory slices of eight, instances, SM, copy engines, decoders, JPEG, OFA */
static const struct mig_profile DATACENTRE[] = {
	{ 4, 0, 7, 8, 1, 132, 8, 7, 7, 1, "" },
	{ 3, 5, 4, 4, 1, 64, 4, 4, 4, 0, "" },
	{ 2, 9, 3, 4, 2, 60, 3, 3, 3, 0, "" },
	{ 1, 14, 2, 2, 3, 32, 2, 2, 2, 0, "" },
	{ 9, 15, 1, 2, 4, 26, 1, 1, 1, 0, "" },
	{ 0, 19, 1, 1, 7, 16, 1, 1, 1, 0, "" },
	{ 7, 20, 1, 1, 1, 16, 1, 1, 1, 1, "+me" },
	{ 0 },
};
static const struct mig_profile RTX[] = {
	{ 3, 0, 4, 8, 1, 188, 4, 4, 4, 1, "" },
	{ 12, 32, 4, 8, 1, 188, 4, 4, 4, 1, "+gfx" },
	{ 1, 5, 2, 4, 2, 94, 2, 2, 2, 0, "" },
	{ 11, 35, 2, 4, 2, 94, 2, 2, 2, 0, "+gfx" },
	{ 0, 14, 1, 2, 4, 46, 1, 1, 1, 0, "" },
	{ 10, 47, 1, 2, 4, 46, 1, 1, 1, 0, "+gfx" },
	{ 7, 21, 1, 2, 1, 46, 1, 1, 1, 1, "+me" },
	{ 0 },
};
static const struct mig_profile *const FAMILY[FAMILIES] = { DATACENTRE, RTX };
static const unsigned CI_SLICES[CI_PROFILES] = { 1, 2, 3, 4, 7, 8, 6, 0, 0 };

static const struct mig_profile *profiles(const struct gpu *gpu)
{
	return FAMILY[gpu->mig_family % FAMILIES];
}

const struct mig_profile *mig_profile_by_enum(const struct gpu *gpu, unsigned gi_enum)
{
	for (const struct mig_profile *profile = profiles(gpu); profile->slices; profile++)
		if (profile->gi_enum == gi_enum)
			return profile;
	return NULL;
}

const struct mig_profile *mig_profile_by_id(const struct gpu *gpu, unsigned id)
{
	for (const struct mig_profile *profile = profiles(gpu); profile->slices; profile++)
		if (profile->id == id)
			return profile;
	return NULL;
}

void mig_profile_name(const struct gpu *gpu, const struct mig_profile *profile, char *name, unsigned long size)
{
	snprintf(name, size, "%ug.%ugb%s", profile->slices, (gpu->mig_gb * profile->size + 4) / 8, profile->suffix);
}

const struct mig_profile *mig_profile_by_name(const struct gpu *gpu, const char *wanted)
{
	char name[96];

	for (const struct mig_profile *profile = profiles(gpu); profile->slices; profile++) {
		mig_profile_name(gpu, profile, name, sizeof name);
		if (strcmp(name, wanted) == 0)
			return profile;
	}
	return NULL;
}

unsigned mig_limit(const struct gpu *gpu)
{
	return profiles(gpu)->slices;
}

unsigned long long mig_memory_mb(const struct gpu *gpu, const struct mig_profile *profile)
{
	return (gpu->memory >> 20) * profile->size / 8;
}

unsigned ci_slices(unsigned profile)
{
	return profile < CI_PROFILES ? CI_SLICES[profile] : 0;
}

unsigned mig_memory_used(const struct gpu *gpu)
{
	unsigned used = 0;

	for (const struct gpu_instance *gi = gpu->instances; gi < gpu->instances + MAX_MIG; gi++)
		if (gi->present)
			used |= ((1u << gi->placement.size) - 1) << gi->placement.start;
	return used;
}

static unsigned count_of(const struct gpu *gpu, unsigned gi_enum)
{
	unsigned count = 0;

	for (const struct gpu_instance *gi = gpu->instances; gi < gpu->instances + MAX_MIG; gi++)
		count += gi->present && gi->profile == gi_enum;
	return count;
}

/* May an instance of this profile lie there? Starts are multiples of the size; seven small ones leave the eighth slice. */
bool mig_fits(const struct gpu *gpu, const struct mig_profile *profile, unsigned start)
{
	unsigned mask = ((1u << profile->size) - 1) << start;

	return start % profile->size == 0 && start / profile->size < profile->instances &&
		start + profile->size <= MIG_SLICES && !(mig_memory_used(gpu) & mask) &&
		count_of(gpu, profile->gi_enum) < profile->instances;
}

struct gpu_instance *mig_place(struct gpu *gpu, const struct mig_profile *profile, int start)
{
	unsigned first = start < 0 ? 0 : (unsigned)start, last = start < 0 ? MIG_SLICES - 1 : (unsigned)start;

	for (; first <= last && !mig_fits(gpu, profile, first); first++)
		;
	if (first > last)
		return NULL;
	for (struct gpu_instance *gi = gpu->instances; gi < gpu->instances + MAX_MIG; gi++)
		if (!gi->present) {
			*gi = (struct gpu_instance){ true, MIG_SLICES / profile->size - 1 + first / profile->size,
				profile->gi_enum, { first, profile->size } };
			return gi;
		}
	return NULL;
}

unsigned mig_slices_used(const struct gpu *gpu, unsigned gi)
{
	unsigned used = 0;

	for (const struct mig_device *mig = gpu->migs; mig < gpu->migs + MAX_MIG; mig++)
		if (mig->present && mig->gi == gi)
			used += ci_slices(mig->profile);
	return used;
}

static bool ci_taken(const struct gpu *gpu, unsigned gi, unsigned ci)
{
	for (const struct mig_device *mig = gpu->migs; mig < gpu->migs + MAX_MIG; mig++)
		if (mig->present && mig->gi == gi && mig->ci == ci)
			return true;
	return false;
}

unsigned gpu_index(const struct gpu *gpu)
{
	return (unsigned)(gpu - machine.gpus);
}

/* index and ci: the first free one where negative. */
struct mig_device *mig_add(struct gpu *gpu, const struct gpu_instance *gi, int index, int ci, unsigned slices)
{
	unsigned number = ci < 0 ? 0 : (unsigned)ci, slot = index < 0 ? 0 : (unsigned)index, profile = 0;
	const struct mig_profile *parent = mig_profile_by_enum(gpu, gi->profile);
	struct mig_device *mig;

	while (ci < 0 && ci_taken(gpu, gi->id, number))
		number++;
	while (index < 0 && slot < MAX_MIG && gpu->migs[slot].present)
		slot++;
	while (profile < CI_PROFILES && CI_SLICES[profile] != slices)
		profile++;
	if (slot >= MAX_MIG || gpu->migs[slot].present || ci_taken(gpu, gi->id, number) || profile == CI_PROFILES ||
	    slices == 0 || mig_slices_used(gpu, gi->id) + slices > parent->slices)
		return NULL;
	mig = &gpu->migs[slot];
	*mig = (struct mig_device){ .present = true, .gi = gi->id, .ci = number, .profile = profile };
	snprintf(mig->uuid, sizeof mig->uuid, "MIG-%08x-%04x-5000-8000-%06x%06x", gpu_index(gpu), slot, gi->id, number);
	return mig;
}
