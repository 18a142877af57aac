// What the operators for ONNX Runtime share.
#ifndef ACWFACE_ORT_COMMON_H
#define ACWFACE_ORT_COMMON_H

#include <onnxruntime_c_api.h>

#include "deform.h"

// The first release with KernelContext_ParallelFor and shape inference for custom operators.
enum { API_VERSION = 17 };

#define TRY(call)                            \
    do {                                     \
        OrtStatus* status_ = (call);         \
        if (status_ != NULL) return status_; \
    } while (0)

// An input or an output, dense.
typedef struct {
    void* data;
    size_t rank;
    int64_t shape[4];
} Tensor;

OrtStatus* acwface_fail(const OrtApi* api, const char* message);

// Attributes that are absent leave *value as it is.
void acwface_read_int(const OrtApi* api, const OrtKernelInfo* info, const char* name, int64_t* value);
void acwface_read_float(const OrtApi* api, const OrtKernelInfo* info, const char* name, float* value);

// A tensor of more than four axes has rank 0.
OrtStatus* acwface_read_tensor(const OrtApi* api, const OrtValue* value, Tensor* tensor);
OrtStatus* acwface_read_input(const OrtApi* api, const OrtKernelContext* context, size_t index, Tensor* tensor);
OrtStatus* acwface_read_constant(const OrtApi* api, const OrtKernelInfo* info, size_t index, Tensor* tensor);
OrtStatus* acwface_make_output(const OrtApi* api, OrtKernelContext* context, const int64_t shape[4], void** data);

// For shape inference, which ONNX Runtime calls without an API: the dimensions of an input, negative where they are not known, and
// their names. *rank is 0 if the input has not exactly `wanted` axes.
OrtStatus* acwface_input_shape(const OrtApi* api, OrtShapeInferContext* context, size_t index, size_t wanted, size_t* rank, int64_t* shape,
                               const char** names);
OrtStatus* acwface_infer_output(const OrtApi* api, OrtShapeInferContext* context, ONNXTensorElementDataType type, const int64_t shape[4],
                                const char* names[4]);
extern const OrtApi* acwface_shape_api;  // one for the whole process

extern const OrtCustomOp acwface_ort_sample, acwface_ort_tiled, acwface_ort_conv3x3, acwface_ort_int8_deform, acwface_ort_int8_conv3x3;

// Callbacks that are the same for all.
const char* ORT_API_CALL acwface_provider(const OrtCustomOp* op);
size_t ORT_API_CALL acwface_one(const OrtCustomOp* op);
size_t ORT_API_CALL acwface_three(const OrtCustomOp* op);
size_t ORT_API_CALL acwface_four(const OrtCustomOp* op);
int ORT_API_CALL acwface_first_version(const OrtCustomOp* op);
int ORT_API_CALL acwface_last_version(const OrtCustomOp* op);
ONNXTensorElementDataType ORT_API_CALL acwface_float32(const OrtCustomOp* op, size_t index);
OrtCustomOpInputOutputCharacteristic ORT_API_CALL acwface_required(const OrtCustomOp* op, size_t index);
OrtMemType ORT_API_CALL acwface_memory(const OrtCustomOp* op, size_t index);

// INPUT_TYPE gives each input's type; outputs are one, of OUTPUT_TYPE.
#define ACWFACE_OPERATOR(NAME, INPUTS, INPUT_TYPE, OUTPUT_TYPE, CREATE, DESTROY, COMPUTE, INFER)                                       \
    {                                                                                                                                  \
        .version = API_VERSION, .GetName = NAME, .GetExecutionProviderType = acwface_provider, .GetInputType = INPUT_TYPE,             \
        .GetInputTypeCount = INPUTS, .GetOutputType = OUTPUT_TYPE, .GetOutputTypeCount = acwface_one, .KernelDestroy = DESTROY,        \
        .GetInputCharacteristic = acwface_required, .GetOutputCharacteristic = acwface_required, .GetInputMemoryType = acwface_memory, \
        .CreateKernelV2 = CREATE, .KernelComputeV2 = COMPUTE, .InferOutputShapeFn = INFER, .GetStartVersion = acwface_first_version,   \
        .GetEndVersion = acwface_last_version,                                                                                         \
    }

#endif
