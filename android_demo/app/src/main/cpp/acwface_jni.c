// What KernelDelegate.kt calls: the delegate of export/kernel as a number that LiteRT's interpreter takes.

#include <jni.h>
#include <stddef.h>
#include <stdint.h>

#include "tensorflow/lite/core/c/common.h"

TfLiteDelegate* tflite_plugin_create_delegate(char** keys, char** values, size_t count, void (*report_error)(const char*));
void tflite_plugin_destroy_delegate(TfLiteDelegate* delegate);
const char* acwface_kernel_version(void);

JNIEXPORT jlong JNICALL Java_acwface_demo_KernelDelegate_create(JNIEnv* env, jclass class) {
    (void)env, (void)class;
    return (jlong)(intptr_t)tflite_plugin_create_delegate(NULL, NULL, 0, NULL);
}

JNIEXPORT void JNICALL Java_acwface_demo_KernelDelegate_destroy(JNIEnv* env, jclass class, jlong handle) {
    (void)env, (void)class;
    tflite_plugin_destroy_delegate((TfLiteDelegate*)(intptr_t)handle);
}

JNIEXPORT jstring JNICALL Java_acwface_demo_KernelDelegate_version(JNIEnv* env, jclass class) {
    (void)class;
    return (*env)->NewStringUTF(env, acwface_kernel_version());
}
