// SPDX-License-Identifier: Apache-2.0
#ifndef LAB_AGENT_H
#define LAB_AGENT_H

/* Prints what the agent was given, one fact a line. */
void report_facts(void);

/* What kata-agent does first when it is PID 1; ends the process where kata-agent would fail. */
void do_init_duties(void);

/* Prints the kernel's switches, one a line. */
void report_sysctls(void);
/* Prints what containers would get of NICs, and the machine as NCCL and sysfs have it. */
void report_rdma(void);

/* Copies this program to where kata-agent starts programs from below /run, and starts it there with the word RAN. */
#define RAN "--ran"
void run_below_run(void);

/* Tries to open a GPU from a cgroup that is not the root. */
void try_gate(void);

/* Makes `count` processes whose parent is gone, waits for their end and reports the zombies that stay visible. */
void storm_of_orphans(long count);

/* Starts a stand-in for the attestation agent; HOW is what comes of it. */
void start_attestation(const char *how);

/* Gives the first link an address and a default route, as for a pod. */
void join_network(void);

/* Sends `count` numbered datagrams to /dev/log and reports how many were taken. */
void flood_log(long count);

#endif
