// What the operators for ONNX Runtime share, and their registration.

#include "ort_common.h"

#include <stdio.h>

const OrtApi* acwface_shape_api;

OrtStatus* acwface_fail(const OrtApi* api, const char* message) { return api->CreateStatus(ORT_INVALID_ARGUMENT, message); }

void acwface_read_int(const OrtApi* api, const OrtKernelInfo* info, const char* name, int64_t* value) {
    OrtStatus* status = api->KernelInfoGetAttribute_int64(info, name, value);
    if (status != NULL) api->ReleaseStatus(status);
}

void acwface_read_float(const OrtApi* api, const OrtKernelInfo* info, const char* name, float* value) {
    OrtStatus* status = api->KernelInfoGetAttribute_float(info, name, value);
    if (status != NULL) api->ReleaseStatus(status);
}

OrtStatus* acwface_read_tensor(const OrtApi* api, const OrtValue* value, Tensor* tensor) {
    OrtTensorTypeAndShapeInfo* info = NULL;
    TRY(api->GetTensorTypeAndShape(value, &info));
    OrtStatus* status = api->GetDimensionsCount(info, &tensor->rank);
    if (tensor->rank > 4) tensor->rank = 0;
    if (status == NULL) status = api->GetDimensions(info, tensor->shape, tensor->rank);
    api->ReleaseTensorTypeAndShapeInfo(info);
    if (status != NULL) return status;
    return api->GetTensorMutableData((OrtValue*)value, &tensor->data);
}

OrtStatus* acwface_read_input(const OrtApi* api, const OrtKernelContext* context, size_t index, Tensor* tensor) {
    const OrtValue* value = NULL;
    TRY(api->KernelContext_GetInput(context, index, &value));
    return acwface_read_tensor(api, value, tensor);
}

OrtStatus* acwface_read_constant(const OrtApi* api, const OrtKernelInfo* info, size_t index, Tensor* tensor) {
    int constant = 0;
    const OrtValue* value = NULL;
    TRY(api->KernelInfoGetConstantInput_tensor(info, index, &constant, &value));
    if (!constant) return acwface_fail(api, "acwface: weights, biases and scales of this operator must be constants");
    return acwface_read_tensor(api, value, tensor);
}

OrtStatus* acwface_make_output(const OrtApi* api, OrtKernelContext* context, const int64_t shape[4], void** data) {
    OrtValue* value = NULL;
    TRY(api->KernelContext_GetOutput(context, 0, shape, 4, &value));
    return api->GetTensorMutableData(value, data);
}

OrtStatus* acwface_input_shape(const OrtApi* api, OrtShapeInferContext* context, size_t index, size_t wanted, size_t* rank, int64_t* shape,
                               const char** names) {
    OrtTensorTypeAndShapeInfo* info = NULL;  // stays the context's
    TRY(api->ShapeInferContext_GetInputTypeShape(context, index, &info));
    TRY(api->GetDimensionsCount(info, rank));
    if (*rank != wanted) {
        *rank = 0;
        return NULL;
    }
    TRY(api->GetDimensions(info, shape, wanted));
    return api->GetSymbolicDimensions(info, names, wanted);
}

OrtStatus* acwface_infer_output(const OrtApi* api, OrtShapeInferContext* context, ONNXTensorElementDataType type, const int64_t shape[4],
                                const char* names[4]) {
    // A length that is neither known nor named would be taken for -1, and outputs of different sizes for equally large.
    for (int axis = 0; axis < 4; axis++)
        if (shape[axis] < 0 && (names[axis] == NULL || names[axis][0] == '\0')) return NULL;
    OrtTensorTypeAndShapeInfo* info = NULL;
    TRY(api->CreateTensorTypeAndShapeInfo(&info));
    OrtStatus* status = api->SetTensorElementType(info, type);
    if (status == NULL) status = api->SetDimensions(info, shape, 4);
    if (status == NULL) status = api->SetSymbolicDimensions(info, names, 4);
    if (status == NULL) status = api->ShapeInferContext_SetOutputTypeShape(context, 0, info);
    api->ReleaseTensorTypeAndShapeInfo(info);
    return status;
}

const char* ORT_API_CALL acwface_provider(const OrtCustomOp* op) { return (void)op, "CPUExecutionProvider"; }
size_t ORT_API_CALL acwface_one(const OrtCustomOp* op) { return (void)op, 1; }
size_t ORT_API_CALL acwface_three(const OrtCustomOp* op) { return (void)op, 3; }
size_t ORT_API_CALL acwface_four(const OrtCustomOp* op) { return (void)op, 4; }
int ORT_API_CALL acwface_first_version(const OrtCustomOp* op) { return (void)op, 1; }
int ORT_API_CALL acwface_last_version(const OrtCustomOp* op) { return (void)op, INT32_MAX; }
ONNXTensorElementDataType ORT_API_CALL acwface_float32(const OrtCustomOp* op, size_t index) {
    return (void)op, (void)index, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
}
OrtCustomOpInputOutputCharacteristic ORT_API_CALL acwface_required(const OrtCustomOp* op, size_t index) {
    return (void)op, (void)index, INPUT_OUTPUT_REQUIRED;
}
OrtMemType ORT_API_CALL acwface_memory(const OrtCustomOp* op, size_t index) { return (void)op, (void)index, OrtMemTypeDefault; }

ACWFACE_API OrtStatus* ORT_API_CALL RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
    const OrtApi* api = base->GetApi(API_VERSION);
    if (api == NULL) {
        char message[128];
        const char* version = base->GetVersionString();
        snprintf(message, sizeof(message), "acwface: ONNX Runtime 1.%d or later is needed, this is %s", API_VERSION, version);
        return base->GetApi(1)->CreateStatus(ORT_NOT_IMPLEMENTED, message);
    }
    acwface_shape_api = api;
    OrtCustomOpDomain* domain = NULL;
    TRY(api->CreateCustomOpDomain("acwface", &domain));  // the session options keep it as long as they live
    TRY(api->CustomOpDomain_Add(domain, &acwface_ort_sample));
    TRY(api->CustomOpDomain_Add(domain, &acwface_ort_tiled));
    TRY(api->CustomOpDomain_Add(domain, &acwface_ort_conv3x3));
    TRY(api->CustomOpDomain_Add(domain, &acwface_ort_int8_deform));
    TRY(api->CustomOpDomain_Add(domain, &acwface_ort_int8_conv3x3));
    return api->AddCustomOpDomain(options, domain);
}
