/* SPDX-License-Identifier: Apache-2.0 */
/* The grammar of a description: one directive a line, words, key=value pairs, "quotes" for spaces, # to the end. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "machine.h"

enum { MAX_WORDS = 48 };

enum kind { TEXT, NUMBER, BIG, PAIR, LIST, CHOICE, BUS_ID, PCI_ID, CLUSTER };
struct word { const char *text; unsigned value; };
struct key {
	const char *name;
	enum kind kind;
	size_t offset, size;
	const struct word *words;
};

static const struct word SWITCH[] = { { "off", 0 }, { "on", 1 }, { NULL, 0 } };
static const struct word MIG[] = { { "off", MIG_OFF }, { "on", MIG_ON }, { "unsupported", MIG_UNSUPPORTED }, { NULL, 0 } };
static const struct word FAMILY[] = { { "datacentre", 0 }, { "rtx", 1 }, { NULL, 0 } };
static const struct word FABRIC[] = {
	{ "unsupported", 0 }, { "not-started", 1 }, { "in-progress", 2 }, { "completed", 3 }, { NULL, 0 } };
static const struct word ENVIRONMENT[] = { { "unavailable", 0 }, { "sim", 1 }, { "prod", 2 }, { NULL, 0 } };
static const struct word MULTIGPU[] = { { "none", 0 }, { "ppcie", 1 }, { "nvle", 2 }, { NULL, 0 } };
static const struct word CPU[] = {
	{ "none", 0 }, { "sev", 1 }, { "tdx", 2 }, { "snp", 3 }, { "snp-vtom", 4 }, { NULL, 0 } };
static const struct word CAPABLE[] = { { "incapable", 0 }, { "capable", 1 }, { NULL, 0 } };

#define GPU(member) offsetof(struct gpu, member), sizeof(((struct gpu *)0)->member)
#define MACHINE(member) offsetof(struct machine, member), sizeof(((struct machine *)0)->member)

static const struct key GPU_KEYS[] = {
	{ "uuid", TEXT, GPU(uuid), NULL },
	{ "name", TEXT, GPU(name), NULL },
	{ "serial", TEXT, GPU(serial), NULL },
	{ "part", TEXT, GPU(part), NULL },
	{ "vbios", TEXT, GPU(vbios), NULL },
	{ "minor", NUMBER, GPU(minor), NULL },
	{ "bus", BUS_ID, GPU(domain), NULL },
	{ "pci", PCI_ID, GPU(pci_device_id), NULL },
	{ "subsystem", PCI_ID, GPU(pci_subsystem_id), NULL },
	{ "memory", BIG, GPU(memory), NULL },
	{ "cc", CHOICE, GPU(cc), SWITCH },
	{ "persistence", CHOICE, GPU(persistence), SWITCH },
	{ "graphics-mhz", PAIR, GPU(graphics_mhz), NULL },
	{ "idle-mhz", NUMBER, GPU(idle_mhz), NULL },
	{ "step-mhz", NUMBER, GPU(step_mhz), NULL },
	{ "memory-mhz", LIST, GPU(memory_mhz), NULL },
	{ "power-mw", PAIR, GPU(power_mw), NULL },
	{ "power-default-mw", NUMBER, GPU(power_default_mw), NULL },
	{ "draw-mw", NUMBER, GPU(draw_mw), NULL },
	{ "celsius", NUMBER, GPU(celsius), NULL },
	{ "busy", PAIR, GPU(busy), NULL },
	{ "ecc", PAIR, GPU(ecc), NULL },
	{ "used", BIG, GPU(used), NULL },
	{ "compute-capability", PAIR, GPU(capability), NULL },
	{ "fabric", CHOICE, GPU(fabric), FABRIC },
	{ "fabric-status", NUMBER, GPU(fabric_status), NULL },
	{ "fabric-clique", NUMBER, GPU(fabric_clique), NULL },
	{ "fabric-health", NUMBER, GPU(fabric_health), NULL },
	{ "fabric-summary", NUMBER, GPU(fabric_summary), NULL },
	{ "nvlinks", NUMBER, GPU(nvlinks), NULL },
	{ "nvlinks-down", NUMBER, GPU(nvlinks_down), NULL },
	{ "p2p", NUMBER, GPU(p2p), NULL },
	{ "fabric-cluster", CLUSTER, GPU(fabric_cluster), NULL },
	{ "mig", CHOICE, GPU(mig), MIG },
	{ "mig-needs-reset", CHOICE, GPU(mig_needs_reset), SWITCH },
	{ "mig-gb", NUMBER, GPU(mig_gb), NULL },
	{ "mig-family", CHOICE, GPU(mig_family), FAMILY },
	{ NULL, TEXT, 0, 0, NULL },
};

/* What calls change, which the state file is written with; and what is measured. */
static const struct key STATE_KEYS[] = {
	{ "draw-mw", NUMBER, GPU(draw_mw), NULL },
	{ "celsius", NUMBER, GPU(celsius), NULL },
	{ "busy", PAIR, GPU(busy), NULL },
	{ "ecc", PAIR, GPU(ecc), NULL },
	{ "used", BIG, GPU(used), NULL },
	{ "nvlinks", NUMBER, GPU(nvlinks), NULL },
	{ "nvlinks-down", NUMBER, GPU(nvlinks_down), NULL },
	{ "fabric", CHOICE, GPU(fabric), FABRIC },
	{ "locked-graphics", PAIR, GPU(locked_graphics), NULL },
	{ "locked-memory", PAIR, GPU(locked_memory), NULL },
	{ "power-limit-mw", NUMBER, GPU(power_limit_mw), NULL },
	{ "persistence", NUMBER, GPU(persistence), NULL },
	{ "mig", NUMBER, GPU(mig), NULL },
	{ "mig-pending", NUMBER, GPU(mig_pending), NULL },
	{ NULL, TEXT, 0, 0, NULL },
};

static const struct key CC_KEYS[] = {
	{ "environment", CHOICE, MACHINE(environment), ENVIRONMENT },
	{ "feature", CHOICE, MACHINE(feature), SWITCH },
	{ "devtools", CHOICE, MACHINE(devtools), SWITCH },
	{ "multigpu", CHOICE, MACHINE(multigpu), MULTIGPU },
	{ "cpu", CHOICE, MACHINE(cpu), CPU },
	{ "gpus", CHOICE, MACHINE(gpus_capable), CAPABLE },
	{ "ready", CHOICE, MACHINE(ready), SWITCH },
	{ NULL, TEXT, 0, 0, NULL },
};

static bool number(const char *text, unsigned long long *value)
{
	char *end;

	if (*text == '\0' || *text == '-')
		return false;
	*value = strtoull(text, &end, 0);
	return *end == '\0';
}

static bool small(const char *text, unsigned *value)
{
	unsigned long long wide;

	if (!number(text, &wide) || wide > UINT_MAX)
		return false;
	*value = (unsigned)wide;
	return true;
}

static bool choice(const struct word *words, const char *text, unsigned *value)
{
	for (; words->text; words++)
		if (strcmp(words->text, text) == 0) {
			*value = words->value;
			return true;
		}
	return small(text, value);              /* a number stands for a value that has no name, e.g. an unknown mode */
}

static bool list(const char *text, unsigned *values, unsigned limit, unsigned *count)
{
	char copy[160], *rest = copy, *word;

	snprintf(copy, sizeof copy, "%s", text);
	for (*count = 0; (word = strsep(&rest, ",")) != NULL; (*count)++)
		if (*count == limit || !small(word, &values[*count]))
			return false;
	return true;
}

static bool bus_id(const char *text, struct gpu *gpu)
{
	unsigned function;
	char rest;

	return sscanf(text, "%x:%x:%x.%x%c", &gpu->domain, &gpu->bus, &gpu->device, &function, &rest) == 4 && function == 0;
}

static bool cluster(const char *text, uint8_t *bytes)
{
	unsigned value, i;

	for (i = 0; i < 16; i++, text += 2)
		if (sscanf(text, "%2x", &value) != 1)
			return false;
		else
			bytes[i] = (uint8_t)value;
	return *text == '\0';
}

static bool assign(void *object, const struct key *key, const char *text)
{
	char *member = (char *)object + key->offset;
	unsigned vendor, device, count;
	char rest;

	switch (key->kind) {
	case TEXT:
		return (size_t)snprintf(member, key->size, "%s", text) < key->size;
	case NUMBER:
		return small(text, (unsigned *)(void *)member);
	case BIG:
		return number(text, (unsigned long long *)(void *)member);
	case PAIR:
		return list(text, (unsigned *)(void *)member, 2, &count) && count == 2;
	case LIST:
		return list(text, (unsigned *)(void *)member, MAX_MEM_CLOCKS, &((struct gpu *)object)->memory_clocks);
	case CHOICE:
		return choice(key->words, text, (unsigned *)(void *)member);
	case BUS_ID:
		return bus_id(text, object);
	case PCI_ID:
		if (sscanf(text, "%x:%x%c", &vendor, &device, &rest) != 2)
			return false;
		*(unsigned *)(void *)member = device << 16 | vendor;
		return true;
	case CLUSTER:
		return cluster(text, (uint8_t *)member);
	}
	return false;
}

/* Assign every key=value word; the first bad one is returned. */
static const char *assign_all(void *object, const struct key *keys, char **words)
{
	static char problem[120];

	for (; *words; words++) {
		char *value = strchr(*words, '=');
		const struct key *key = keys;

		if (value != NULL)
			*value++ = '\0';
		while (key->name && strcmp(key->name, *words) != 0)
			key++;
		if (key->name == NULL || value == NULL || !assign(object, key, value)) {
			snprintf(problem, sizeof problem, "%s \"%.60s\"", key->name ? "bad value for" : "unknown key", *words);
			return problem;
		}
	}
	return NULL;
}

/* Take KEY=NUMBER out of the words; -1 where it is absent or no number. */
static long take(char **words, const char *name)
{
	size_t length = strlen(name);
	unsigned value;

	for (; *words; words++)
		if (strncmp(*words, name, length) == 0 && (*words)[length] == '=') {
			bool good = small(*words + length + 1, &value);

			for (; words[1]; words++)
				words[0] = words[1];
			words[0] = NULL;
			return good ? (long)value : -1;
		}
	return -1;
}

static char *take_text(char **words, const char *name)
{
	size_t length = strlen(name);

	for (; *words; words++)
		if (strncmp(*words, name, length) == 0 && (*words)[length] == '=') {
			char *value = *words + length + 1;

			for (; words[1]; words++)
				words[0] = words[1];
			words[0] = NULL;
			return value;
		}
	return NULL;
}

static const char *on_gpu(char **words)
{
	struct gpu *gpu = &machine.gpus[machine.gpu_count];
	unsigned index;

	if (words[0] == NULL || !small(words[0], &index) || index != machine.gpu_count || index >= MAX_GPUS)
		return "gpu wants its index next: 0, 1, 2, ... in order";
	*gpu = (struct gpu){
		.name = "NVIDIA H100 80GB HBM3", .minor = index, .bus = index + 1, .memory = 85899345920ULL,
		.pci_device_id = 0x233010de, .pci_subsystem_id = 0x16c110de, .capability = { 9, 0 },
		.graphics_mhz = { 345, 1980 }, .idle_mhz = 345, .step_mhz = 15,
		.memory_mhz = { 2619, 1593 }, .memory_clocks = 2,
		.power_mw = { 200000, 700000 }, .power_default_mw = 700000, .draw_mw = 72000, .celsius = 31, .node_fd = -1,
	};
	snprintf(gpu->uuid, sizeof gpu->uuid, "GPU-00000000-0000-4000-8000-%012x", index);
	snprintf(gpu->vbios, sizeof gpu->vbios, "96.00.00.00.01");
	snprintf(gpu->serial, sizeof gpu->serial, "1650000000%03u", index);
	snprintf(gpu->part, sizeof gpu->part, "900-00000-0000-000");
	machine.gpu_count++;

	const char *problem = assign_all(gpu, GPU_KEYS, words + 1);
	if (problem)
		return problem;
	gpu->mig_pending = gpu->mig == MIG_ON;
	gpu->power_limit_mw = gpu->power_default_mw;
	if (gpu->mig_gb == 0)
		gpu->mig_gb = (unsigned)((gpu->memory + (1ULL << 29)) >> 30);
	return NULL;
}

static struct gpu *taken_gpu(char **words)
{
	long index = take(words, "gpu");

	return index < 0 || index >= (long)machine.gpu_count ? NULL : &machine.gpus[index];
}

static const char *on_set(char **words)
{
	struct gpu *gpu = taken_gpu(words);

	return gpu ? assign_all(gpu, STATE_KEYS, words) : "set wants gpu=N of a GPU above";
}

/* instance gpu=N profile=NAME [start=S] [id=I]: a GPU instance; without id it follows from where it lies, as the driver's does. */
static const char *on_instance(char **words)
{
	struct gpu *gpu = taken_gpu(words);
	char *name = take_text(words, "profile");
	long start = take(words, "start"), id = take(words, "id");
	const struct mig_profile *profile = gpu && name ? mig_profile_by_name(gpu, name) : NULL;
	struct gpu_instance *instance;

	if (profile == NULL || *words)
		return "instance wants gpu=N profile=NAME [start=S] [id=I], the name one of that GPU's MIG profiles";
	instance = mig_place(gpu, profile, (int)start);
	if (instance && id >= 0)
		instance->id = (unsigned)id;
	return instance ? NULL : "no room for that GPU instance";
}

/* mig gpu=N gi=I ci=C [index=J] [uuid=U] [profile=NAME] [slices=S]: a compute instance, with its GPU instance where none is yet. */
static const char *on_mig(char **words)
{
	struct gpu *gpu = taken_gpu(words);
	char *name = take_text(words, "profile"), *uuid = take_text(words, "uuid");
	long gi = take(words, "gi"), ci = take(words, "ci"), slices = take(words, "slices");
	long index = take(words, "index");
	const struct mig_profile *profile;
	struct gpu_instance *instance;
	struct mig_device *device;

	if (gpu == NULL || gi < 0 || ci < 0 || *words)
		return "mig wants gpu=N gi=I ci=C [index=J] [uuid=U] [profile=NAME] [slices=S]";
	for (instance = gpu->instances; instance < gpu->instances + MAX_MIG; instance++)
		if (instance->present && instance->id == (unsigned)gi)
			break;
	if (instance == gpu->instances + MAX_MIG) {
		profile = mig_profile_by_name(gpu, name ? name : "");
		instance = profile ? mig_place(gpu, profile, -1) : NULL;
		if (instance == NULL)
			return "unknown MIG profile, or no room for it";
		instance->id = (unsigned)gi;
	}
	profile = mig_profile_by_enum(gpu, instance->profile);
	device = mig_add(gpu, instance, (int)index, (int)ci, slices < 0 ? profile->slices : (unsigned)slices);
	if (device == NULL)
		return "that compute instance does not fit";
	if (uuid != NULL)
		snprintf(device->uuid, sizeof device->uuid, "%s", uuid);
	return NULL;
}

/* clear gpu=N: forget the instances of the description; a state file lists its own. */
static const char *on_clear(char **words)
{
	struct gpu *gpu = taken_gpu(words);

	if (gpu == NULL || *words)
		return "clear wants gpu=N";
	memset(gpu->instances, 0, sizeof gpu->instances);
	memset(gpu->migs, 0, sizeof gpu->migs);
	return NULL;
}

static const char *add_fault(enum fault_kind kind, char **words)
{
	struct fault fault = { .kind = kind };
	long gpu = take(words, "gpu"), mig = take(words, "mig"), call = take(words, "call");
	bool wants_value = kind == FAULT_FAIL || kind == FAULT_DELAY;

	if (machine.fault_count == MAX_FAULTS)
		return "too many faults";
	if (words[0] == NULL || snprintf(fault.function, sizeof fault.function, "%s", words[0]) >= (int)sizeof fault.function)
		return "a fault wants a function name";
	if ((words[1] != NULL) != wants_value || (wants_value && (!small(words[1], &fault.value) || words[2])))
		return "fail wants FUNCTION [gpu=N] [mig=M] [call=N] CODE, delay the same with MILLISECONDS, hang and crash neither";
	fault.gpu = (int)gpu;
	fault.mig = (int)mig;
	fault.call = call < 0 ? 0 : (unsigned)call;
	machine.faults[machine.fault_count++] = fault;
	return NULL;
}

static const char *on_fail(char **words) { return add_fault(FAULT_FAIL, words); }
static const char *on_hang(char **words) { return add_fault(FAULT_HANG, words); }
static const char *on_crash(char **words) { return add_fault(FAULT_CRASH, words); }
static const char *on_delay(char **words) { return add_fault(FAULT_DELAY, words); }

static const char *on_cc(char **words)
{
	if (!machine.cc_supported)
		machine.gpus_capable = 1;
	machine.cc_supported = true;
	return assign_all(&machine, CC_KEYS, words);
}

static const char *copy(char *target, size_t size, char **words)
{
	return words[0] && !words[1] && (size_t)snprintf(target, size, "%s", words[0]) < size ? NULL : "wants one value";
}

static const char *on_driver(char **words) { return copy(machine.driver, sizeof machine.driver, words); }
static const char *on_nvml(char **words) { return copy(machine.nvml, sizeof machine.nvml, words); }

static const char *on_cuda(char **words)
{
	return words[0] && !words[1] && small(words[0], &machine.cuda) ? NULL : "wants one number, e.g. 13000";
}

static const char *on_table(char **words)
{
	return words[0] && !words[1] && small(words[0], &machine.table) && machine.table <= MAX_TABLE ? NULL : "wants one number, 32 at most";
}

/* Paths of a description are relative to the folder it lies in. */
static const char *place(char *target, char **words, const char *directory)
{
	if (words[0] == NULL || words[1] != NULL)
		return "wants one path";
	return snprintf(target, PATH_MAX, "%s%s%s", *words[0] == '/' ? "" : directory, *words[0] == '/' ? "" : "/",
		words[0]) < PATH_MAX ? NULL : "path is too long";
}

static const struct directive { const char *name; const char *(*run)(char **words); } DIRECTIVES[] = {
	{ "driver", on_driver }, { "nvml", on_nvml }, { "cuda", on_cuda }, { "table", on_table }, { "cc", on_cc }, { "gpu", on_gpu },
	{ "instance", on_instance }, { "mig", on_mig }, { "clear", on_clear }, { "set", on_set },
	{ "fail", on_fail }, { "hang", on_hang }, { "crash", on_crash }, { "delay", on_delay },
	{ NULL, NULL },
};
static const struct { const char *name; size_t offset; } PLACES[] = {
	{ "log", offsetof(struct machine, log) }, { "state", offsetof(struct machine, state) },
	{ "nodes", offsetof(struct machine, nodes) }, { "door", offsetof(struct machine, door) }, { NULL, 0 },
};

/* Split in place. Quotes may begin inside a word (name="two words") and are dropped. */
static bool split(char *line, char **words)
{
	unsigned count = 0;
	char *out;

	for (;;) {
		while (*line == ' ' || *line == '\t' || *line == '\n')
			line++;
		if (*line == '\0' || *line == '#')
			break;
		if (count == MAX_WORDS - 1)
			return false;
		words[count++] = out = line;
		for (bool quoted = false; *line && (quoted || !strchr(" \t\n", *line)); line++)
			if (*line == '"')
				quoted = !quoted;
			else
				*out++ = *line;
		if (*line)
			line++;
		*out = '\0';
	}
	words[count] = NULL;
	return true;
}

const char *parse_line(char *line, const char *directory)
{
	char *words[MAX_WORDS];
	unsigned i;

	if (!split(line, words))
		return "too many words";
	if (words[0] == NULL)
		return NULL;
	for (i = 0; PLACES[i].name; i++)
		if (strcmp(PLACES[i].name, words[0]) == 0)
			return place((char *)&machine + PLACES[i].offset, words + 1, directory);
	for (i = 0; DIRECTIVES[i].name; i++)
		if (strcmp(DIRECTIVES[i].name, words[0]) == 0)
			return DIRECTIVES[i].run(words + 1);
	return "unknown directive";
}
