// SPDX-License-Identifier: Apache-2.0
/*
 * The module _kernel: system calls for guest_cdi/lean/kernel.py, which takes ctypes where this is missing, and memory.
 *
 * An argument is a number, None, or what has bytes: then the kernel gets its address. The result is what the kernel
 * returns, an error as a negative number. call() lets other threads run meanwhile. call_locked() does not: the child of
 * a clone has no other thread that could give the interpreter back.
 */
#include <Python.h>
#include <errno.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MOST 7 /* the number of the call and six arguments */

struct request {
	long words[MOST];
	Py_buffer views[MOST];
	int used;
};

static int take(struct request *request, int place, PyObject *argument)
{
	if (argument == Py_None)
		return 0;
	if (PyLong_Check(argument)) {
		request->words[place] = (long)PyLong_AsUnsignedLongMask(argument);
		return PyErr_Occurred() ? -1 : 0;
	}
	if (PyObject_GetBuffer(argument, &request->views[request->used], PyBUF_SIMPLE) < 0)
		return -1;
	request->words[place] = (long)request->views[request->used++].buf;
	return 0;
}

static long enter(const long *words)
{
	long result = syscall(words[0], words[1], words[2], words[3], words[4], words[5], words[6]);

	return result == -1 ? -errno : result;
}

static PyObject *perform(PyObject *const *arguments, Py_ssize_t count, int is_locked)
{
	struct request request = { .used = 0 };
	PyObject *result = NULL;
	long found;

	if (count < 1 || count > MOST) {
		PyErr_SetString(PyExc_TypeError, "a system call has a number and at most six arguments");
		return NULL;
	}
	for (int i = 0; i < count; i++)
		if (take(&request, i, arguments[i]) < 0)
			goto out;
	if (is_locked) {
		found = enter(request.words);
	} else {
		Py_BEGIN_ALLOW_THREADS
		found = enter(request.words);
		Py_END_ALLOW_THREADS
	}
	result = PyLong_FromLong(found);
out:
	while (request.used)
		PyBuffer_Release(&request.views[--request.used]);
	return result;
}

static PyObject *call(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
	return perform(arguments, count, 0);
}

static PyObject *call_locked(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
	return perform(arguments, count, 1);
}

/* For structures with pointers; the caller keeps the bytes. */
static PyObject *address(PyObject *Py_UNUSED(module), PyObject *bytes)
{
	char *found = PyBytes_AsString(bytes);

	return found ? PyLong_FromVoidPtr(found) : NULL;
}

/*
 * Gives back memory that was needed once. Code that runs adapts itself in place, so that each page of it that ran is this
 * process's own. Such a page becomes the file's again: code as it was before it ran, which is as good, since the words that
 * change are those that any run of it may find changed or not. No other thread is within an instruction, for this one has
 * the interpreter. In a program that can be moved the loader has filled in addresses there, so there it stays.
 */
static PyObject *give_back(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none))
{
#ifndef __PIE__
	extern char __start_static_code[], __stop_static_code[];
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	uintptr_t first = ((uintptr_t)__start_static_code + page - 1) & -page, end = (uintptr_t)__stop_static_code & -page;

	madvise((void *)first, end - first, MADV_DONTNEED);
#endif
	malloc_trim(0);
	Py_RETURN_NONE;
}

#define FUNCTION(function) { #function, (PyCFunction)(void (*)(void))function, METH_FASTCALL, NULL }

static PyMethodDef functions[] = {
	FUNCTION(call), FUNCTION(call_locked), { "address", address, METH_O, NULL },
	{ "give_back", give_back, METH_NOARGS, NULL }, { NULL, NULL, 0, NULL },
};

static struct PyModuleDef definition = {
	PyModuleDef_HEAD_INIT, .m_name = "_kernel", .m_size = -1, .m_methods = functions,
};

PyMODINIT_FUNC PyInit__kernel(void)
{
	return PyModule_Create(&definition);
}
