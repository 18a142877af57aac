// QDeformConvTiled and QConv3x3 for ONNX Runtime; README.md defines them. Scales and weights are constants, and are brought into the
// kernel's order when a session is made.

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "int8.h"
#include "ort_common.h"

// From the image on, both operators have the same inputs; QDeformConvTiled has one before, and two behind them.
enum { INPUT, INPUT_SCALE, INPUT_ZERO, WEIGHT, WEIGHT_SCALE, BIAS, OUTPUT_SCALE, OUTPUT_ZERO };

// One node of a graph.
typedef struct {
    const OrtApi* api;
    int64_t input_start;
    int32_t in_channels, out_channels, in_zero, out_zero;
    float offset_limit, negative_slope;
    _Alignas(8) char weight[];  // as acwface_int8_prepare leaves it
} Node;

static OrtStatus* read_scale(const OrtApi* api, const OrtKernelInfo* info, size_t index, float* scale, int32_t* zero) {
    Tensor of_scale, of_zero;
    TRY(acwface_read_constant(api, info, index, &of_scale));
    TRY(acwface_read_constant(api, info, index + 1, &of_zero));
    if (of_scale.rank != 0 || of_zero.rank != 0) return acwface_fail(api, "acwface: an image has one scale and one zero");
    *scale = *(const float*)of_scale.data;
    *zero = *(const uint8_t*)of_zero.data;
    return *scale > 0.0f ? NULL : acwface_fail(api, "acwface: a scale must be positive");
}

// `first` is INPUT's place among the inputs.
static OrtStatus* create(const OrtApi* api, const OrtKernelInfo* info, int first, void** kernel) {
    Node node = {.api = api, .negative_slope = 1.0f};
    Tensor weight, scale, bias;
    float in_scale, out_scale = 1.0f;
    TRY(read_scale(api, info, first + INPUT_SCALE, &in_scale, &node.in_zero));
    TRY(acwface_read_constant(api, info, first + WEIGHT, &weight));
    TRY(acwface_read_constant(api, info, first + WEIGHT_SCALE, &scale));
    TRY(acwface_read_constant(api, info, first + BIAS, &bias));
    if (first > 0) TRY(read_scale(api, info, first + OUTPUT_SCALE, &out_scale, &node.out_zero));
    acwface_read_int(api, info, "input_start", &node.input_start);
    acwface_read_float(api, info, "offset_limit", &node.offset_limit);
    acwface_read_float(api, info, "negative_slope", &node.negative_slope);
    if (node.input_start < 0) return acwface_fail(api, "acwface: a start must not be negative");
    if (!(node.offset_limit >= 0.0f)) return acwface_fail(api, "acwface: offset_limit must not be negative");
    if (node.offset_limit == 0.0f) node.offset_limit = INFINITY;
    if (weight.rank != 3 || weight.shape[0] != ACWFACE_TAPS || weight.shape[1] < 1 || weight.shape[2] < 1)
        return acwface_fail(api, "acwface: weight must be (9, C, O)");
    if (weight.shape[1] > ACWFACE_INT8_INPUTS || weight.shape[1] * weight.shape[2] > INT32_MAX / 64)
        return acwface_fail(api, "acwface: weight is too large");
    if (scale.rank != 1 || scale.shape[0] != weight.shape[2]) return acwface_fail(api, "acwface: weight's scale must be (O)");
    if (bias.rank != 1 || bias.shape[0] != weight.shape[2]) return acwface_fail(api, "acwface: bias must be (O)");
    node.in_channels = (int32_t)weight.shape[1];
    node.out_channels = (int32_t)weight.shape[2];

    Node* made = malloc(sizeof(Node) + acwface_int8_bytes(node.in_channels, node.out_channels));
    float* factors = malloc(2 * (size_t)node.out_channels * sizeof(float));
    if (made == NULL || factors == NULL) {
        free(made);
        free(factors);
        return api->CreateStatus(ORT_FAIL, "acwface: out of memory");
    }
    float* biases = factors + node.out_channels;
    for (int32_t o = 0; o < node.out_channels; o++) {
        factors[o] = in_scale * ((const float*)scale.data)[o] / out_scale;
        biases[o] = ((const float*)bias.data)[o] / out_scale;
    }
    *made = node;
    acwface_int8_prepare(node.in_channels, node.out_channels, weight.data, factors, biases, made->weight);
    free(factors);
    *kernel = made;
    return NULL;
}

static OrtStatusPtr ORT_API_CALL create_deform(const OrtCustomOp* op, const OrtApi* api, const OrtKernelInfo* info, void** kernel) {
    (void)op;
    return create(api, info, 1, kernel);
}

static OrtStatusPtr ORT_API_CALL create_conv3x3(const OrtCustomOp* op, const OrtApi* api, const OrtKernelInfo* info, void** kernel) {
    (void)op;
    return create(api, info, 0, kernel);
}

static void ORT_API_CALL destroy(void* kernel) { free(kernel); }

// A call cut into chunks of pixels; of the two, one is used.
typedef struct {
    const AcwfaceInt8Kernel* kernel;
    AcwfaceInt8Deform deform;
    AcwfaceInt8Conv3x3 conv3x3;
    ptrdiff_t predicted_image, in_image, out_image;  // values from an image to the next
    int32_t pixels;
    size_t chunks;  // of an image
} Call;

static void run_chunk(const Call* call, size_t index, int is_deform) {
    const ptrdiff_t image = (ptrdiff_t)(index / call->chunks);
    const int32_t first = (int32_t)(index % call->chunks) * ACWFACE_CHUNK;
    const int32_t last = call->pixels - first < ACWFACE_CHUNK ? call->pixels : first + ACWFACE_CHUNK;
    if (is_deform) {
        AcwfaceInt8Deform deform = call->deform;
        deform.layer.predicted += image * call->predicted_image;
        deform.in += image * call->in_image;
        deform.out += image * call->out_image;
        call->kernel->deform(&deform, first, last);
    } else {
        AcwfaceInt8Conv3x3 conv3x3 = call->conv3x3;
        conv3x3.in += image * call->in_image;
        conv3x3.out += image * call->out_image;
        call->kernel->conv3x3(&conv3x3, first, last);
    }
}

static void run_deform(void* call, size_t index) { run_chunk(call, index, 1); }
static void run_conv3x3(void* call, size_t index) { run_chunk(call, index, 0); }

// Reads the image, (N, H, W, channels), makes the output, and fills in what both have in common.
static OrtStatus* begin(const Node* node, OrtKernelContext* context, size_t index, Tensor* in, void** out, Call* call) {
    const OrtApi* api = node->api;
    TRY(acwface_read_input(api, context, index, in));
    if (in->rank != 4) return acwface_fail(api, "acwface: input must be (N, H, W, channels)");
    if (in->shape[3] < node->input_start + node->in_channels) return acwface_fail(api, "acwface: input has too few channels");
    const int64_t pixels = in->shape[1] * in->shape[2], shape[4] = {in->shape[0], in->shape[1], in->shape[2], node->out_channels};
    if (pixels > INT32_MAX / 16) return acwface_fail(api, "acwface: the image is too large");
    TRY(acwface_make_output(api, context, shape, out));
    *call = (Call){
        .kernel = acwface_int8_kernel(0),
        .in_image = pixels * in->shape[3],
        .out_image = pixels * node->out_channels,
        .pixels = (int32_t)pixels,
        .chunks = (size_t)((pixels + ACWFACE_CHUNK - 1) / ACWFACE_CHUNK),
    };
    return NULL;
}

static OrtStatusPtr ORT_API_CALL compute_deform(void* kernel, OrtKernelContext* context) {
    const Node* node = kernel;
    const OrtApi* api = node->api;
    Tensor in, predicted;
    void* out = NULL;
    Call call;
    TRY(begin(node, context, 1, &in, &out, &call));
    TRY(acwface_read_input(api, context, 0, &predicted));
    if (predicted.rank != 4 || memcmp(predicted.shape, in.shape, 3 * sizeof(in.shape[0])) != 0 || predicted.shape[3] < ACWFACE_PREDICTED)
        return acwface_fail(api, "acwface: predicted must be (N, H, W, 27 or more), as input has N, H and W");
    if (in.shape[0] * call.pixels == 0) return NULL;
    call.predicted_image = call.pixels * predicted.shape[3];
    call.deform = (AcwfaceInt8Deform){
        .layer =
            {
                .height = (int32_t)in.shape[1],
                .width = (int32_t)in.shape[2],
                .channels = node->out_channels,
                .predicted = predicted.data,
                .predicted_pixel = predicted.shape[3],
                .predicted_channel = 1,
                .offset_limit = node->offset_limit,
                .negative_slope = node->negative_slope,
            },
        .in_channels = node->in_channels,
        .in_zero = node->in_zero,
        .in = (const uint8_t*)in.data + node->input_start,
        .in_pixel = in.shape[3],
        .weight = node->weight,
        .out_zero = node->out_zero,
        .out = out,
        .out_pixel = node->out_channels,
    };
    return api->KernelContext_ParallelFor(context, run_deform, (size_t)in.shape[0] * call.chunks, 0, &call);
}

static OrtStatusPtr ORT_API_CALL compute_conv3x3(void* kernel, OrtKernelContext* context) {
    const Node* node = kernel;
    Tensor in;
    void* out = NULL;
    Call call;
    TRY(begin(node, context, 0, &in, &out, &call));
    if (in.shape[0] * call.pixels == 0) return NULL;
    call.conv3x3 = (AcwfaceInt8Conv3x3){
        .height = (int32_t)in.shape[1],
        .width = (int32_t)in.shape[2],
        .in_channels = node->in_channels,
        .out_channels = node->out_channels,
        .in_zero = node->in_zero,
        .in = (const uint8_t*)in.data + node->input_start,
        .in_pixel = in.shape[3],
        .weight = node->weight,
        .out = out,
        .out_pixel = node->out_channels,
    };
    return node->api->KernelContext_ParallelFor(context, run_conv3x3, (size_t)in.shape[0] * call.chunks, 0, &call);
}

static OrtStatus* infer(OrtShapeInferContext* context, size_t first, ONNXTensorElementDataType type) {
    int64_t shape[4], weight[3];
    const char *names[4], *weight_names[3];
    size_t rank = 0, weight_rank = 0;
    TRY(acwface_input_shape(acwface_shape_api, context, first + INPUT, 4, &rank, shape, names));
    TRY(acwface_input_shape(acwface_shape_api, context, first + WEIGHT, 3, &weight_rank, weight, weight_names));
    if (rank == 0 || weight_rank == 0) return NULL;  // the call itself will say so
    shape[3] = weight[2];
    names[3] = weight_names[2];
    return acwface_infer_output(acwface_shape_api, context, type, shape, names);
}

static OrtStatusPtr ORT_API_CALL infer_deform(const OrtCustomOp* op, OrtShapeInferContext* context) {
    (void)op;
    return infer(context, 1, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8);
}

static OrtStatusPtr ORT_API_CALL infer_conv3x3(const OrtCustomOp* op, OrtShapeInferContext* context) {
    (void)op;
    return infer(context, 0, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
}

static ONNXTensorElementDataType type_of(size_t input) {
    return input == INPUT || input == INPUT_ZERO || input == OUTPUT_ZERO ? ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8
           : input == WEIGHT                                             ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8
                                                                         : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
}
static ONNXTensorElementDataType ORT_API_CALL deform_type(const OrtCustomOp* op, size_t index) {
    return (void)op, index == 0 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT : type_of(index - 1);
}
static ONNXTensorElementDataType ORT_API_CALL conv3x3_type(const OrtCustomOp* op, size_t index) { return (void)op, type_of(index); }
static ONNXTensorElementDataType ORT_API_CALL uint8_type(const OrtCustomOp* op, size_t index) {
    return (void)op, (void)index, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
}
static size_t ORT_API_CALL nine(const OrtCustomOp* op) { return (void)op, 9; }
static size_t ORT_API_CALL six(const OrtCustomOp* op) { return (void)op, 6; }
static const char* ORT_API_CALL deform_name(const OrtCustomOp* op) { return (void)op, "QDeformConvTiled"; }
static const char* ORT_API_CALL conv3x3_name(const OrtCustomOp* op) { return (void)op, "QConv3x3"; }

const OrtCustomOp acwface_ort_int8_deform =
    ACWFACE_OPERATOR(deform_name, nine, deform_type, uint8_type, create_deform, destroy, compute_deform, infer_deform);
const OrtCustomOp acwface_ort_int8_conv3x3 =
    ACWFACE_OPERATOR(conv3x3_name, six, conv3x3_type, acwface_float32, create_conv3x3, destroy, compute_conv3x3, infer_conv3x3);
