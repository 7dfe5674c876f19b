// SPDX-License-Identifier: Apache-2.0
/*
 * Starts the interpreter with the init's modules, which are part of this program: tables and code that the freezer wrote
 * (write.py), as the interpreter is. Nothing is looked for and no file is opened but the few extension modules beside it.
 *
 * The interpreter is isolated: it takes nothing from the environment and knows no folder but its own. Every place is said
 * here, so that it computes none: when the kernel starts this program nothing is mounted.
 *
 * Without a seed CPython asks the kernel for random numbers before anything runs, and dies where there are none yet: a
 * processor without RDRAND, and no /dev/urandom to fall back on. Nothing here keeps tables of what strangers send.
 */
#include <Python.h>
#include <malloc.h>
#include <sys/mman.h>
#include "frozen.h"

extern const struct _frozen *_PyImport_FrozenBootstrap; /* where the interpreter looks first, for its own first modules too */
extern const char __start_static_code[], __stop_static_code[];
PyObject *__real_PyMarshal_ReadObjectFromString(const char *data, Py_ssize_t size);

#if PY_VERSION_HEX != FROZEN_WITH
#error "the modules are of another interpreter than the headers: lock the roots tools and compile again, together"
#endif

#define PROGRAM L"/usr/lib/nvrc/nvrc"
#define FOLDER L"/usr/lib/nvrc/_internal"

/* What the table of modules points to is code as it is in memory (objects.h), or marshalled: which is told by its place. */
PyObject *__wrap_PyMarshal_ReadObjectFromString(const char *data, Py_ssize_t size)
{
	if (data < __start_static_code || data >= __stop_static_code)
		return __real_PyMarshal_ReadObjectFromString(data, size);
	return (PyObject *)data;
}

static void check(PyStatus status)
{
	if (PyStatus_Exception(status))
		Py_ExitStatusException(status);
}

/* Memory for objects, in small pages only: of a large one most would be nothing's, for the life of the VM. */
static void *map(void *Py_UNUSED(context), size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return NULL;
	madvise(memory, size, MADV_NOHUGEPAGE);
	return memory;
}

static void unmap(void *Py_UNUSED(context), void *memory, size_t size)
{
	munmap(memory, size);
}

static void configure(int argc, char **argv)
{
	PyConfig config;

	PyConfig_InitIsolatedConfig(&config);
	config.parse_argv = config.site_import = config.write_bytecode = config.pathconfig_warnings = 0;
	config.install_signal_handlers = config.use_hash_seed = config.module_search_paths_set = 1;
	config.hash_seed = 0;
	config.optimization_level = 2;

	struct { wchar_t **field; const wchar_t *value; } places[] = {
		{ &config.program_name, PROGRAM }, { &config.executable, PROGRAM }, { &config.base_executable, PROGRAM },
		{ &config.home, FOLDER }, { &config.stdlib_dir, FOLDER }, { &config.prefix, FOLDER },
		{ &config.exec_prefix, FOLDER }, { &config.base_prefix, FOLDER }, { &config.base_exec_prefix, FOLDER },
	};
	for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++)
		check(PyConfig_SetString(&config, places[i].field, places[i].value));
	check(PyWideStringList_Append(&config.module_search_paths, FOLDER L"/lib-dynload"));
	check(PyConfig_SetBytesArgv(&config, argc, argv));
	check(Py_InitializeFromConfig(&config));
	PyConfig_Clear(&config);
}

int main(int argc, char **argv)
{
	PyPreConfig before;
	PyObjectArenaAllocator arenas = { NULL, map, unmap };

	PyObject_SetArenaAllocator(&arenas);
	mallopt(M_ARENA_MAX, 1); /* one heap for all threads: one of them runs at a time */
	PyPreConfig_InitIsolatedConfig(&before);
	before.configure_locale = 1;
	before.utf8_mode = -1; /* where the locale is C, as it is for PID 1 */
	check(Py_PreInitialize(&before));
	_PyImport_FrozenBootstrap = frozen_modules;
	configure(argc, argv);
	if (PySys_SetObject("frozen", Py_True) == 0 && PyImport_ImportFrozenModule("__main__") > 0)
		return 0;
	PyErr_Print(); /* which ends the program with the status of a sys.exit() */
	return 1;
}
