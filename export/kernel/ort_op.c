// The operators of deform.h for ONNX Runtime 1.17 and later, as a library that SessionOptions.register_custom_ops_library loads.
// Domain "acwface", version 1, float32; N images, H x W pixels, O output channels.
//
// DeformSample     predicted (N, P, H, W), mixed (N, H * W, M), bias (O)
//     predicted    what the convolutions of offsets and modulators give; the layer's 27 channels begin at `predicted_start`
//     mixed        the nine tap matrices applied to every pixel; the layer's 9 * O channels, tap by tap, begin at `mixed_start`
// DeformConvTiled  predicted (N, P, H, W), input (N, H * W, M), weight (9, C, O), bias (O)
//     input        what the tap matrices are to be applied to; the layer's C channels begin at `input_start`
// Output           (N, O, H, W)
// Attributes       `channels` (O, required), `offset_limit` (pixels; 0, the default: none), `negative_slope` of the activation
//                  (default 1: none), and the starts above (default 0)

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <onnxruntime_c_api.h>

#include "deform.h"

// The first release with KernelContext_ParallelFor and shape inference for custom operators.
enum { API_VERSION = 17 };

typedef enum { SAMPLE, CONV } Form;

// One node of a graph.
typedef struct {
    const OrtApi* api;
    Form form;
    int64_t predicted_start, source_start, channels;
    float offset_limit, negative_slope;
} Node;

#define TRY(call)                           \
    do {                                    \
        OrtStatus* status_ = (call);        \
        if (status_ != NULL) return status_; \
    } while (0)

static OrtStatus* fail(const OrtApi* api, const char* message) { return api->CreateStatus(ORT_INVALID_ARGUMENT, message); }

// --- attributes ---

static void read_int(const OrtApi* api, const OrtKernelInfo* info, const char* name, int64_t* value) {
    OrtStatus* status = api->KernelInfoGetAttribute_int64(info, name, value);
    if (status != NULL) api->ReleaseStatus(status);  // absent: the default stays
}

static void read_float(const OrtApi* api, const OrtKernelInfo* info, const char* name, float* value) {
    OrtStatus* status = api->KernelInfoGetAttribute_float(info, name, value);
    if (status != NULL) api->ReleaseStatus(status);
}

static OrtStatus* create(const OrtApi* api, const OrtKernelInfo* info, Form form, void** kernel) {
    Node node = {api, form, 0, 0, 0, 0.0f, 1.0f};
    read_int(api, info, "predicted_start", &node.predicted_start);
    read_int(api, info, form == SAMPLE ? "mixed_start" : "input_start", &node.source_start);
    read_int(api, info, "channels", &node.channels);
    read_float(api, info, "offset_limit", &node.offset_limit);
    read_float(api, info, "negative_slope", &node.negative_slope);
    if (node.channels < 1 || node.channels > INT32_MAX / ACWFACE_TAPS) return fail(api, "acwface: attribute channels must be positive");
    if (node.predicted_start < 0 || node.source_start < 0) return fail(api, "acwface: a start must not be negative");
    if (!(node.offset_limit >= 0.0f)) return fail(api, "acwface: offset_limit must not be negative");
    if (node.offset_limit == 0.0f) node.offset_limit = INFINITY;
    *kernel = malloc(sizeof(Node));
    if (*kernel == NULL) return api->CreateStatus(ORT_FAIL, "acwface: out of memory");
    memcpy(*kernel, &node, sizeof(Node));
    return NULL;
}

static OrtStatusPtr ORT_API_CALL create_sample(const OrtCustomOp* op, const OrtApi* api, const OrtKernelInfo* info, void** kernel) {
    (void)op;
    return create(api, info, SAMPLE, kernel);
}

static OrtStatusPtr ORT_API_CALL create_conv(const OrtCustomOp* op, const OrtApi* api, const OrtKernelInfo* info, void** kernel) {
    (void)op;
    return create(api, info, CONV, kernel);
}

static void ORT_API_CALL destroy(void* kernel) { free(kernel); }

// --- a call ---

typedef struct {
    const float* data;
    size_t rank;
    int64_t shape[4];
} Tensor;

static OrtStatus* read_tensor(const OrtApi* api, OrtKernelContext* context, size_t index, Tensor* tensor) {
    const OrtValue* value = NULL;
    OrtTensorTypeAndShapeInfo* info = NULL;
    TRY(api->KernelContext_GetInput(context, index, &value));
    TRY(api->GetTensorTypeAndShape(value, &info));
    OrtStatus* status = api->GetDimensionsCount(info, &tensor->rank);
    if (status == NULL && tensor->rank <= 4) status = api->GetDimensions(info, tensor->shape, tensor->rank);
    api->ReleaseTensorTypeAndShapeInfo(info);
    if (status != NULL) return status;
    return api->GetTensorMutableData((OrtValue*)value, (void**)&tensor->data);
}

// A call cut into chunks of pixels. Exactly one of the two forms is used.
typedef struct {
    const AcwfaceKernel* kernel;
    Form form;
    AcwfaceDeformSample sample;
    AcwfaceDeformConv conv;
    ptrdiff_t predicted_image, source_image, out_image;  // floats from an image to the next
    int32_t pixels;
    size_t chunks;  // of an image
} Call;

static void run_chunk(void* data, size_t index) {
    const Call* call = data;
    const ptrdiff_t image = (ptrdiff_t)(index / call->chunks);
    const int32_t first = (int32_t)(index % call->chunks) * ACWFACE_CHUNK;
    const int32_t last = call->pixels - first < ACWFACE_CHUNK ? call->pixels : first + ACWFACE_CHUNK;
    AcwfaceDeformSample sample = call->sample;
    AcwfaceDeformConv conv = call->conv;
    AcwfaceDeform* layer = call->form == SAMPLE ? &sample.layer : &conv.layer;
    layer->predicted += image * call->predicted_image;
    layer->out += image * call->out_image;
    sample.mixed += image * call->source_image;
    conv.in += image * call->source_image;
    if (call->form == SAMPLE)
        call->kernel->sample(&sample, first, last);
    else
        call->kernel->conv(&conv, first, last);
}

static OrtStatusPtr ORT_API_CALL compute(void* kernel, OrtKernelContext* context) {
    const Node* node = kernel;
    const OrtApi* api = node->api;
    Tensor predicted, source, weight = {0}, bias;
    TRY(read_tensor(api, context, 0, &predicted));
    TRY(read_tensor(api, context, 1, &source));
    if (node->form == CONV) TRY(read_tensor(api, context, 2, &weight));
    TRY(read_tensor(api, context, node->form == CONV ? 3 : 2, &bias));

    if (predicted.rank != 4) return fail(api, "acwface: predicted must be (N, P, H, W)");
    const int64_t images = predicted.shape[0], height = predicted.shape[2], width = predicted.shape[3], pixels = height * width;
    if (predicted.shape[1] < node->predicted_start + ACWFACE_PREDICTED) return fail(api, "acwface: predicted has too few channels");
    if (pixels > INT32_MAX / 16) return fail(api, "acwface: the image is too large");
    if (source.rank != 3 || source.shape[0] != images || source.shape[1] != pixels)
        return fail(api, "acwface: the second input must be (N, H * W, channels), with N, H and W of predicted");
    if (node->form == CONV && (weight.rank != 3 || weight.shape[0] != ACWFACE_TAPS || weight.shape[2] != node->channels))
        return fail(api, "acwface: weight must be (9, C, channels)");
    const int64_t needed = node->form == CONV ? weight.shape[1] : ACWFACE_TAPS * node->channels;
    if (source.shape[2] < node->source_start + needed) return fail(api, "acwface: the second input has too few channels");
    if (bias.rank != 1 || bias.shape[0] != node->channels) return fail(api, "acwface: bias must be (channels)");

    OrtValue* value = NULL;
    float* out = NULL;
    const int64_t shape[4] = {images, node->channels, height, width};
    TRY(api->KernelContext_GetOutput(context, 0, shape, 4, &value));
    TRY(api->GetTensorMutableData(value, (void**)&out));
    if (images * pixels == 0) return NULL;

    const AcwfaceDeform layer = {
        .height = (int32_t)height,
        .width = (int32_t)width,
        .channels = (int32_t)node->channels,
        .predicted = predicted.data + node->predicted_start * pixels,
        .predicted_pixel = 1,
        .predicted_channel = pixels,
        .bias = bias.data,
        .out = out,
        .out_pixel = 1,
        .out_channel = pixels,
        .offset_limit = node->offset_limit,
        .negative_slope = node->negative_slope,
    };
    const float* begin = source.data + node->source_start;
    Call call = {
        .kernel = acwface_kernel(0),
        .form = node->form,
        .sample = {layer, begin, source.shape[2]},
        .conv = {layer, (int32_t)weight.shape[1], begin, source.shape[2], weight.data},
        .predicted_image = predicted.shape[1] * pixels,
        .source_image = pixels * source.shape[2],
        .out_image = node->channels * pixels,
        .pixels = (int32_t)pixels,
        .chunks = (size_t)((pixels + ACWFACE_CHUNK - 1) / ACWFACE_CHUNK),
    };
    return api->KernelContext_ParallelFor(context, run_chunk, (size_t)images * call.chunks, 0, &call);
}

// --- shape inference: (N, channels, H, W), with the names of dimensions that are not known ---

static const OrtApi* shape_api;  // ONNX Runtime hands shape inference no API; it is one for the whole process

static OrtStatusPtr ORT_API_CALL infer(const OrtCustomOp* op, OrtShapeInferContext* context) {
    (void)op;
    const OrtApi* api = shape_api;
    OrtTensorTypeAndShapeInfo *in = NULL, *out = NULL;
    const OrtOpAttr* attribute = NULL;
    int64_t channels = 0, shape[4];
    const char* names[4] = {"", "", "", ""};
    size_t length = 0, rank = 0;
    TRY(api->ShapeInferContext_GetAttribute(context, "channels", &attribute));
    TRY(api->ReadOpAttr(attribute, ORT_OP_ATTR_INT, &channels, sizeof(channels), &length));
    TRY(api->ShapeInferContext_GetInputTypeShape(context, 0, &in));  // stays the context's
    TRY(api->GetDimensionsCount(in, &rank));
    if (rank != 4) return NULL;  // unknown; the call itself will check
    TRY(api->GetDimensions(in, shape, 4));
    TRY(api->GetSymbolicDimensions(in, names, 4));
    shape[1] = channels;
    names[1] = "";
    TRY(api->CreateTensorTypeAndShapeInfo(&out));
    OrtStatus* status = api->SetTensorElementType(out, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
    if (status == NULL) status = api->SetDimensions(out, shape, 4);
    if (status == NULL) status = api->SetSymbolicDimensions(out, names, 4);
    if (status == NULL) status = api->ShapeInferContext_SetOutputTypeShape(context, 0, out);
    api->ReleaseTensorTypeAndShapeInfo(out);
    return status;
}

// --- registration ---

static const char* ORT_API_CALL sample_name(const OrtCustomOp* op) { return (void)op, "DeformSample"; }
static const char* ORT_API_CALL conv_name(const OrtCustomOp* op) { return (void)op, "DeformConvTiled"; }
static const char* ORT_API_CALL provider(const OrtCustomOp* op) { return (void)op, "CPUExecutionProvider"; }
static size_t ORT_API_CALL one(const OrtCustomOp* op) { return (void)op, 1; }
static size_t ORT_API_CALL three(const OrtCustomOp* op) { return (void)op, 3; }
static size_t ORT_API_CALL four(const OrtCustomOp* op) { return (void)op, 4; }
static int ORT_API_CALL first_version(const OrtCustomOp* op) { return (void)op, 1; }
static int ORT_API_CALL any_version(const OrtCustomOp* op) { return (void)op, INT32_MAX; }
static ONNXTensorElementDataType ORT_API_CALL float32(const OrtCustomOp* op, size_t index) {
    return (void)op, (void)index, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
}
static OrtCustomOpInputOutputCharacteristic ORT_API_CALL required(const OrtCustomOp* op, size_t index) {
    return (void)op, (void)index, INPUT_OUTPUT_REQUIRED;
}
static OrtMemType ORT_API_CALL memory(const OrtCustomOp* op, size_t index) { return (void)op, (void)index, OrtMemTypeDefault; }

#define OPERATOR(NAME, INPUTS, CREATE)                                                                                                  \
    {                                                                                                                                   \
        .version = API_VERSION, .GetName = NAME, .GetExecutionProviderType = provider, .GetInputType = float32,                         \
        .GetInputTypeCount = INPUTS, .GetOutputType = float32, .GetOutputTypeCount = one, .KernelDestroy = destroy,                     \
        .GetInputCharacteristic = required, .GetOutputCharacteristic = required, .GetInputMemoryType = memory, .CreateKernelV2 = CREATE, \
        .KernelComputeV2 = compute, .InferOutputShapeFn = infer, .GetStartVersion = first_version, .GetEndVersion = any_version,        \
    }

static const OrtCustomOp DEFORM_SAMPLE = OPERATOR(sample_name, three, create_sample);
static const OrtCustomOp DEFORM_CONV_TILED = OPERATOR(conv_name, four, create_conv);

ACWFACE_API OrtStatus* ORT_API_CALL RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
    const OrtApi* api = base->GetApi(API_VERSION);
    if (api == NULL) {
        const OrtApi* old = base->GetApi(1);
        char message[128];
        snprintf(message, sizeof(message), "acwface: ONNX Runtime 1.%d or later is needed, this is %s", API_VERSION, base->GetVersionString());
        return old->CreateStatus(ORT_NOT_IMPLEMENTED, message);
    }
    shape_api = api;
    OrtCustomOpDomain* domain = NULL;
    TRY(api->CreateCustomOpDomain("acwface", &domain));  // the session options keep it as long as they live
    TRY(api->CustomOpDomain_Add(domain, &DEFORM_SAMPLE));
    TRY(api->CustomOpDomain_Add(domain, &DEFORM_CONV_TILED));
    return api->AddCustomOpDomain(options, domain);
}
