// Conv3x3 for ONNX Runtime; README.md defines it. Its weights are constants, and are transformed when a session is made.

#include <stdlib.h>

#include "ort_common.h"

typedef struct {
    const OrtApi* api;
    int64_t input_start;
    int32_t in_channels, out_channels;
    float weight[];  // as acwface_conv3x3_prepare leaves it
} Node;

static OrtStatusPtr ORT_API_CALL create(const OrtCustomOp* op, const OrtApi* api, const OrtKernelInfo* info, void** kernel) {
    (void)op;
    Tensor weight, bias;
    int64_t input_start = 0;
    TRY(acwface_read_constant(api, info, 1, &weight));
    TRY(acwface_read_constant(api, info, 2, &bias));
    acwface_read_int(api, info, "input_start", &input_start);
    if (input_start < 0) return acwface_fail(api, "acwface: a start must not be negative");
    if (input_start > INT32_MAX) return acwface_fail(api, "acwface: a start is too large");
    if (weight.rank != 3 || weight.shape[0] != ACWFACE_TAPS || weight.shape[1] < 1 || weight.shape[2] < 1)
        return acwface_fail(api, "acwface: weight must be (9, C, O)");
    if (weight.shape[1] * weight.shape[2] > INT32_MAX / 64) return acwface_fail(api, "acwface: weight is too large");
    if (bias.rank != 1 || bias.shape[0] != weight.shape[2]) return acwface_fail(api, "acwface: bias must be (O)");
    const int32_t inputs = (int32_t)weight.shape[1], outputs = (int32_t)weight.shape[2];
    Node* node = malloc(sizeof(Node) + acwface_conv3x3_floats(inputs, outputs) * sizeof(float));
    if (node == NULL) return api->CreateStatus(ORT_FAIL, "acwface: out of memory");
    node->api = api;
    node->input_start = input_start;
    node->in_channels = inputs;
    node->out_channels = outputs;
    acwface_conv3x3_prepare(inputs, outputs, weight.data, bias.data, node->weight);
    *kernel = node;
    return NULL;
}

static void ORT_API_CALL destroy(void* kernel) { free(kernel); }

typedef struct {
    const AcwfaceKernel* kernel;
    AcwfaceConv3x3 op;
    ptrdiff_t in_image, out_image;  // floats from an image to the next
    int32_t tiles;
    size_t chunks;  // of an image
} Call;

static void run_chunk(void* data, size_t index) {
    const Call* call = data;
    const ptrdiff_t image = (ptrdiff_t)(index / call->chunks);
    const int32_t first = (int32_t)(index % call->chunks) * ACWFACE_TILES_CHUNK;
    const int32_t last = call->tiles - first < ACWFACE_TILES_CHUNK ? call->tiles : first + ACWFACE_TILES_CHUNK;
    AcwfaceConv3x3 op = call->op;
    op.in += image * call->in_image;
    op.out += image * call->out_image;
    call->kernel->conv3x3(&op, first, last);
}

static OrtStatusPtr ORT_API_CALL compute(void* kernel, OrtKernelContext* context) {
    const Node* node = kernel;
    const OrtApi* api = node->api;
    Tensor in;
    TRY(acwface_read_input(api, context, 0, &in));
    if (in.rank != 4) return acwface_fail(api, "acwface: input must be (N, H, W, channels)");
    if (in.shape[3] < node->input_start + node->in_channels) return acwface_fail(api, "acwface: input has too few channels");
    const int64_t pixels = in.shape[1] * in.shape[2], shape[4] = {in.shape[0], in.shape[1], in.shape[2], node->out_channels};
    if (pixels > INT32_MAX / 16) return acwface_fail(api, "acwface: the image is too large");
    void* out = NULL;
    TRY(acwface_make_output(api, context, shape, &out));
    if (in.shape[0] * pixels == 0) return NULL;

    const int32_t height = (int32_t)in.shape[1], width = (int32_t)in.shape[2], tiles = acwface_conv3x3_tiles(height, width);
    const float* begin = (const float*)in.data + node->input_start;
    Call call = {
        .kernel = acwface_kernel(0),
        .op = {height, width, node->in_channels, node->out_channels, begin, in.shape[3], node->weight, out, shape[3]},
        .in_image = pixels * in.shape[3],
        .out_image = pixels * shape[3],
        .tiles = tiles,
        .chunks = (size_t)(tiles + ACWFACE_TILES_CHUNK - 1) / ACWFACE_TILES_CHUNK,
    };
    return api->KernelContext_ParallelFor(context, run_chunk, (size_t)in.shape[0] * call.chunks, 0, &call);
}

static OrtStatusPtr ORT_API_CALL infer(const OrtCustomOp* op, OrtShapeInferContext* context) {
    (void)op;
    int64_t shape[4], weight[3];
    const char *names[4], *weight_names[3];
    size_t rank = 0, weight_rank = 0;
    TRY(acwface_input_shape(acwface_shape_api, context, 0, 4, &rank, shape, names));
    TRY(acwface_input_shape(acwface_shape_api, context, 1, 3, &weight_rank, weight, weight_names));
    if (rank == 0 || weight_rank == 0) return NULL;  // the call itself will say so
    shape[3] = weight[2];
    names[3] = weight_names[2];
    return acwface_infer_output(acwface_shape_api, context, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, shape, names);
}

static const char* ORT_API_CALL name(const OrtCustomOp* op) { return (void)op, "Conv3x3"; }

const OrtCustomOp acwface_ort_conv3x3 =
    ACWFACE_OPERATOR(name, acwface_three, acwface_float32, acwface_float32, create, destroy, compute, infer);
