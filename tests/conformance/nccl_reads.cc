// SPDX-License-Identifier: Apache-2.0
/*
 * What NCCL makes of a machine: its own ncclTopoGetSystem and ncclTopoComputePaths (src/graph/{xml,topo,paths}.cc), once
 * for each GPU, between stand-ins for NVML, sysfs and the network. Linked with NCCL's objects; docs/conformance.md.
 *
 *     nccl_reads FILE < FUNCTIONS     FILE: a virtualTopology.xml, or - for NCCL without one
 *
 * FUNCTIONS has a line for each PCI function, `KIND|PATH|NUMA|SPEED|WIDTH`: gpu, nic or bridge, where sysfs has it, and
 * numa_node, max_link_speed and max_link_width there. It prints `below BDF PARENT` for each element that is left, and
 * `path BDF BDF NAME` for each pair of two GPUs or of a GPU and a NIC. Status 1: NCCL refused, and said why.
 */
#include "bootstrap.h"
#include "comm.h"
#include "coll_net.h"
#include "gin/gin_host.h"
#include "graph.h"
#include "nvmlwrap.h"
#include "os.h"
#include "topo.h"
#include "transport.h"
#include "xml.h"

#include <cstdarg>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

struct Function {
	std::string kind, path, numa, speed, width;
	std::string bdf() const { return path.substr(path.rfind('/') + 1); }
};

static std::vector<Function> functions, gpus, nics;
static const char *file;
static std::vector<std::vector<char>> slices;

static const Function *find(const std::string &bdf)
{
	for (const Function &one : functions)
		if (one.bdf() == bdf)
			return &one;
	return nullptr;
}

// NCCL's messages

int ncclDebugLevel = NCCL_LOG_WARN;
uint64_t ncclDebugMask = 0;
thread_local int ncclDebugNoWarn = 0;

void ncclDebugLogInternal(ncclDebugLogLevel level, unsigned long, const char *, const char *, int, const char *format, ...)
{
	va_list arguments;
	if (level != NCCL_LOG_WARN || ncclDebugNoWarn)
		return;
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
}

// Environment: nothing but the file is set

const char *ncclGetEnv(const char *name)
{
	return file && strcmp(name, "NCCL_TOPO_FILE") == 0 ? file : nullptr;
}

int64_t ncclLoadParam(char const *, int64_t standard, int64_t, int64_t *cache, int8_t *)
{
	return *cache = standard;
}

// A host

uint64_t getHostHash()
{
	return 1;
}

ncclResult_t int64ToBusId(int64_t id, char *bdf)
{
	snprintf(bdf, NVML_DEVICE_PCI_BUS_ID_BUFFER_SIZE, "%04lx:%02lx:%02lx.%01lx", id >> 20, id >> 12 & 0xff, id >> 4 & 0xff,
		 id & 0xf);
	return ncclSuccess;
}

ncclResult_t busIdToInt64(const char *bdf, int64_t *id)
{
	std::string digits;
	for (; *bdf && (isxdigit(*bdf) || *bdf == ':' || *bdf == '.'); bdf++)
		if (isxdigit(*bdf))
			digits += *bdf;
	*id = strtol(digits.c_str(), nullptr, 16);
	return ncclSuccess;
}

char *ncclOsRealpath(const char *, char *)
{
	return strdup("/sys/bus/pci");
}

ncclResult_t ncclOsGetPciPath(const char *bdf, char **path)
{
	const Function *found = find(bdf);
	if (found)
		*path = strdup(found->path.c_str());
	return found ? ncclSuccess : ncclSystemError;
}

ncclResult_t ncclOsTopoGetStrFromSys(const char *path, const char *name, char *value, int size)
{
	std::string at = path, attribute = name;
	if (attribute.rfind("../", 0) == 0) {
		at = at.substr(0, at.rfind('/'));
		attribute = attribute.substr(3);
	}
	value[0] = '\0';
	for (const Function &one : functions) {
		if (one.path != at)
			continue;
		const std::map<std::string, std::string> known = {
			{"class", one.kind == "gpu" ? "0x030200" : one.kind == "nic" ? "0x020000" : "0x060400"},
			{"vendor", one.kind == "gpu" ? "0x10de" : one.kind == "nic" ? "0x15b3" : "0x8086"},
			{"device", "0x1000"}, {"numa_node", one.numa}, {"max_link_speed", one.speed}, {"max_link_width", one.width}};
		auto found = known.find(attribute);
		snprintf(value, size, "%s", found == known.end() ? "" : found->second.c_str());
	}
	return ncclSuccess;
}

ncclResult_t ncclOsGetBcmLinks(const char *, int *count, char **peers)
{
	*count = 0;
	*peers = nullptr;
	return ncclSuccess;
}

ncclResult_t ncclOsGetPciDeviceClassByBusId(const char *, char *, size_t)
{
	return ncclSystemError;
}

ncclResult_t ncclOsGetNumaNodeAffinity(unsigned int, char *mask, size_t size)
{
	snprintf(mask, size, "ff");
	return ncclSuccess;
}

void ncclOsCpuZero(ncclAffinity &mask)
{
	CPU_ZERO(&mask);
}

void ncclOsCpuSet(ncclAffinity &mask, int cpu)
{
	CPU_SET(cpu, &mask);
}

// NVML: a handle is a place in the list, from 1. GPUs of compute capability 9.0 without NVLinks.

ncclNvmlDevicePairInfo ncclNvmlDevicePairs[ncclNvmlMaxDevices][ncclNvmlMaxDevices];

ncclResult_t ncclNvmlEnsureInitialized()
{
	return ncclSuccess;
}

ncclResult_t ncclNvmlDeviceGetHandleByPciBusId(const char *bdf, nvmlDevice_t *device)
{
	for (size_t i = 0; i < gpus.size(); i++) {
		if (gpus[i].bdf() != bdf)
			continue;
		*device = (nvmlDevice_t)(i + 1);
		return ncclSuccess;
	}
	return ncclSystemError;
}

ncclResult_t ncclNvmlDeviceGetIndex(nvmlDevice_t device, unsigned *index)
{
	*index = (size_t)device - 1;
	return ncclSuccess;
}

ncclResult_t ncclNvmlDeviceGetCudaComputeCapability(nvmlDevice_t, int *major, int *minor)
{
	*major = 9;
	*minor = 0;
	return ncclSuccess;
}

ncclResult_t ncclNvmlDeviceGetPciInfo(nvmlDevice_t, nvmlPciInfo_t *info)
{
	memset(info, 0, sizeof(*info));
	info->pciDeviceId = 0x233010de;
	return ncclSuccess;
}

ncclResult_t ncclNvmlDeviceGetCurrPcieLinkGeneration(nvmlDevice_t, unsigned int *generation)
{
	*generation = 5;
	return ncclSuccess;
}

ncclResult_t ncclNvmlDeviceGetCurrPcieLinkWidth(nvmlDevice_t, unsigned int *width)
{
	*width = 16;
	return ncclSuccess;
}

ncclResult_t ncclNvmlDeviceGetNvLinkCapability(nvmlDevice_t, unsigned int, nvmlNvLinkCapability_t, unsigned int *)
{
	return ncclSystemError;
}

ncclResult_t ncclNvmlDeviceGetFieldValues(nvmlDevice_t, int, nvmlFieldValue_t *)
{
	return ncclSystemError;
}

// A network with the NICs of the list, and ranks that gather what each of them has

static ncclResult_t describe(int number, ncclNetProperties_t *properties)
{
	static std::vector<std::string> names(64);
	memset(properties, 0, sizeof(*properties));
	names[number] = "mlx5_" + std::to_string(number);
	properties->name = names[number].data();
	properties->pciPath = nics[number].path.data();
	properties->guid = number + 1;
	properties->ptrSupport = NCCL_PTR_HOST | NCCL_PTR_CUDA;
	properties->speed = 400000;
	properties->maxComms = 1;
	properties->railId = properties->planeId = NCCL_NET_ID_UNDEF;
	return ncclSuccess;
}

ncclResult_t ncclNetGetDevCount(int, int *physical, int *virtuals)
{
	*physical = nics.size();
	*virtuals = 0;
	return ncclSuccess;
}

ncclResult_t bootstrapIntraNodeAllGather(void *, int *, int rank, int, void *data, int size)
{
	char *all = (char *)data;
	slices[rank].assign(all + (size_t)rank * size, all + (size_t)(rank + 1) * size);
	// What a rank has not found yet is told by this one instead, which adds nothing.
	for (size_t i = 0; i < slices.size(); i++)
		memcpy(all + i * size, slices[slices[i].empty() ? rank : i].data(), size);
	return ncclSuccess;
}

// Linked, and never reached on this way

static ncclResult_t unreachable(const char *name)
{
	fprintf(stderr, "nccl_reads: %s is not played here\n", name);
	exit(3);
}

struct netIf;
ncclTransport *ncclTransports[NTRANSPORTS];
extern "C" cudaError_t cudaGetDeviceProperties(cudaDeviceProp *, int) { return (cudaError_t)unreachable(__func__); }
extern "C" const char *cudaGetErrorString(cudaError_t) { return "no CUDA here"; }
extern "C" cudaError_t cudaGetLastError() { return cudaSuccess; }
bool matchIfList(const char *, int, netIf *, int, bool, int *) { return unreachable(__func__); }
int parseStringList(const char *, netIf *, int) { return unreachable(__func__); }
ncclResult_t ncclCollNetGetDevCount(int, int *, int *) { return unreachable(__func__); }
ncclResult_t ncclCollNetSetVirtDevCount(int, int) { return unreachable(__func__); }
ncclResult_t ncclGinGetDevCount(int, int *, int *) { return unreachable(__func__); }
ncclResult_t ncclRmaGetDevCount(int, int *, int *) { return unreachable(__func__); }
ncclResult_t ncclNetSetVirtDevCount(int, int) { return unreachable(__func__); }
ncclResult_t ncclNvmlDeviceGetNvLinkRemotePciInfo(nvmlDevice_t, unsigned int, nvmlPciInfo_t *) { return unreachable(__func__); }
ncclResult_t ncclNvmlDeviceGetNvLinkState(nvmlDevice_t, unsigned int, nvmlEnableState_t *) { return unreachable(__func__); }

static bool read_functions()
{
	std::string line;
	while (std::getline(std::cin, line)) {
		Function one;
		std::istringstream words(line);
		for (std::string *field : {&one.kind, &one.path, &one.numa, &one.speed, &one.width})
			std::getline(words, *field, '|');
		functions.push_back(one);
		if (one.kind == "gpu")
			gpus.push_back(one);
		else if (one.kind == "nic")
			nics.push_back(one);
	}
	return !gpus.empty() && gpus.size() <= (size_t)ncclNvmlMaxDevices && nics.size() <= 64;
}

static void show_tree(const ncclXmlNode *node)
{
	auto name = [](const ncclXmlNode *one) -> std::string {
		for (const char *key : {"busid", "numaid"})
			for (int i = 0; i < one->nAttrs; i++)
				if (strcmp(one->attrs[i].key, key) == 0)
					return one->attrs[i].value;
		return one->name;
	};
	for (int i = 0; i < node->nSubs; i++) {
		if (strcmp(node->subs[i]->name, "pci") == 0)
			std::cout << "below " << name(node->subs[i]) << ' ' << name(node) << '\n';
		show_tree(node->subs[i]);
	}
}

static bool show(ncclTopoSystem *system)
{
	const ncclTopoNodeSet &found = system->nodes[GPU], &nets = system->nodes[NET];
	for (int a = 0; a < found.count; a++) {
		const ncclTopoNode &gpu = found.nodes[a];
		for (int b = 0; b < found.count; b++)
			if (a != b)
				std::cout << "path " << gpus[gpu.gpu.rank].bdf() << ' ' << gpus[found.nodes[b].gpu.rank].bdf() << ' '
					  << topoPathTypeStr[gpu.paths[GPU][b].type] << '\n';
		for (int b = 0; b < nets.count; b++)
			std::cout << "path " << gpus[gpu.gpu.rank].bdf() << ' ' << nics[nets.nodes[b].net.dev].bdf() << ' '
				  << topoPathTypeStr[gpu.paths[NET][b].type] << '\n';
	}
	return (size_t)found.count == gpus.size() && (size_t)nets.count == nics.size();
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "--version") == 0) {
		printf("NCCL %d.%d.%d\n", NCCL_MAJOR, NCCL_MINOR, NCCL_PATCH);
		return 0;
	}
	if (argc != 2 || !read_functions()) {
		fprintf(stderr, "usage: nccl_reads FILE|- < FUNCTIONS, with a GPU at least\n");
		return 2;
	}
	file = strcmp(argv[1], "-") == 0 ? nullptr : argv[1];
	int count = gpus.size();
	slices.resize(count);
	std::vector<ncclPeerInfo> peers(count);
	ncclNet_t net = {};
	net.name = "lab";
	net.getProperties = describe;
	auto *shared = (ncclSharedResources *)calloc(1, sizeof(ncclSharedResources));
	auto *comm = (ncclComm *)calloc(1, sizeof(ncclComm));
	comm->sharedRes = shared;
	comm->peerInfo = peers.data();
	comm->nRanks = count;
	comm->ncclNet = &net;
	comm->ncclNetVer = 12;
	for (int i = 0; i < count; i++) {
		busIdToInt64(gpus[i].bdf().c_str(), &peers[i].busId);
		peers[i].rank = peers[i].nvmlDev = i;
		peers[i].gdrSupport = 1;
		peers[i].hostHash = getHostHash();
		peers[i].mloPart = NCCL_TOPO_UNDEF;
	}
	// Twice for the first rank: at the second time it gathers what the others found.
	for (int turn = 0; turn <= count; turn++) {
		ncclTopoSystem *system = nullptr;
		comm->rank = turn % count;
		if (turn < count) {
			// With a name for the file that nobody asked for, the rank only shares what it found.
			int fd = memfd_create("topology", 0);
			std::string dump = "/proc/self/fd/" + std::to_string(fd);
			ncclResult_t shared_result = ncclTopoGetSystem(comm, &system, dump.c_str());
			close(fd);
			if (shared_result != ncclSuccess)
				return 1;
			continue;
		}
		if (ncclTopoGetSystem(comm, &system, nullptr) != ncclSuccess || ncclTopoComputePaths(system, nullptr) != ncclSuccess)
			return 1;
		ncclXml *xml;
		if (xmlAlloc(&xml, NCCL_TOPO_XML_MAX_NODES) != ncclSuccess)
			return 1;
		for (std::vector<char> &slice : slices) {
			std::vector<char> copy(slice);
			auto *one = (ncclXml *)copy.data();
			if (ncclTopoConvertXml(one, (uintptr_t)one->nodes, 0) != ncclSuccess || ncclTopoFuseXml(xml, one) != ncclSuccess)
				return 1;
		}
		show_tree(xml->nodes);
		return show(system) ? 0 : 1;
	}
}
