// A plugin for QEMU's user-mode emulation that counts the instructions which a program executes. QEMU's header is not packaged
// everywhere, so the few functions of its plugin interface that are used are declared here.

#include <inttypes.h>
#include <stdio.h>

typedef void (*Translated)(uint64_t id, void* block);
typedef void (*Executed)(unsigned int cpu, void* data);
typedef void (*AtExit)(uint64_t id, void* data);
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, Translated callback);
void qemu_plugin_register_vcpu_tb_exec_cb(void* block, Executed callback, int flags, void* data);
void qemu_plugin_register_atexit_cb(uint64_t id, AtExit callback, void* data);
size_t qemu_plugin_tb_n_insns(const void* block);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = PLUGIN_VERSION;

static uint64_t count;

static void executed(unsigned int cpu, void* instructions) {
    (void)cpu;
    count += (uintptr_t)instructions;
}

static void translated(uint64_t id, void* block) {
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_cb(block, executed, 0, (void*)(uintptr_t)qemu_plugin_tb_n_insns(block));
}

static void at_exit(uint64_t id, void* data) {
    (void)id, (void)data;
    fprintf(stderr, "instructions %" PRIu64 "\n", count);
}

EXPORT int qemu_plugin_install(uint64_t id, const void* info, int argc, char** argv) {
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, at_exit, NULL);
    return 0;
}
