// DeformSample and DeformConvTiled for ONNX Runtime; README.md defines them.

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ort_common.h"

typedef enum { SAMPLE, TILED } Form;

// One node of a graph.
typedef struct {
    const OrtApi* api;
    Form form;
    int64_t predicted_start, predicted_nhwc, source_start, channels, out_nhwc;
    float offset_limit, negative_slope;
} Node;

static OrtStatus* create(const OrtApi* api, const OrtKernelInfo* info, Form form, void** kernel) {
    Node node = {.api = api, .form = form, .negative_slope = 1.0f};
    acwface_read_int(api, info, "predicted_start", &node.predicted_start);
    acwface_read_int(api, info, "predicted_channels_last", &node.predicted_nhwc);
    acwface_read_int(api, info, form == SAMPLE ? "mixed_start" : "input_start", &node.source_start);
    acwface_read_int(api, info, "channels", &node.channels);
    acwface_read_int(api, info, "output_channels_last", &node.out_nhwc);
    acwface_read_float(api, info, "offset_limit", &node.offset_limit);
    acwface_read_float(api, info, "negative_slope", &node.negative_slope);
    if (node.channels < 1 || node.channels > INT32_MAX / ACWFACE_TAPS) return acwface_fail(api, "acwface: channels must be positive");
    if (node.predicted_start < 0 || node.source_start < 0) return acwface_fail(api, "acwface: a start must not be negative");
    if (node.predicted_start > INT32_MAX || node.source_start > INT32_MAX) return acwface_fail(api, "acwface: a start is too large");
    if (!(node.offset_limit >= 0.0f)) return acwface_fail(api, "acwface: offset_limit must not be negative");
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

static OrtStatusPtr ORT_API_CALL create_tiled(const OrtCustomOp* op, const OrtApi* api, const OrtKernelInfo* info, void** kernel) {
    (void)op;
    return create(api, info, TILED, kernel);
}

static void ORT_API_CALL destroy(void* kernel) { free(kernel); }

// A call cut into chunks of pixels. One of the two forms is used.
typedef struct {
    const AcwfaceKernel* kernel;
    Form form;
    AcwfaceDeformSample sample;
    AcwfaceDeformTiled tiled;
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
    AcwfaceDeformTiled tiled = call->tiled;
    AcwfaceDeform* layer = call->form == SAMPLE ? &sample.layer : &tiled.layer;
    layer->predicted += image * call->predicted_image;
    layer->out += image * call->out_image;
    sample.mixed += image * call->source_image;
    tiled.in += image * call->source_image;
    if (call->form == SAMPLE)
        call->kernel->sample(&sample, first, last);
    else
        call->kernel->tiled(&tiled, first, last);
}

// Channels of the second input, which is (N, H * W, channels) or (N, H, W, channels); -1 if it is neither.
static int64_t source_channels(const Tensor* source, int64_t images, int64_t height, int64_t width) {
    if (source->rank == 3 && source->shape[0] == images && source->shape[1] == height * width) return source->shape[2];
    if (source->rank == 4 && source->shape[0] == images && source->shape[1] == height && source->shape[2] == width) return source->shape[3];
    return -1;
}

static OrtStatusPtr ORT_API_CALL compute(void* kernel, OrtKernelContext* context) {
    const Node* node = kernel;
    const OrtApi* api = node->api;
    Tensor predicted, source, weight = {0}, bias;
    TRY(acwface_read_input(api, context, 0, &predicted));
    TRY(acwface_read_input(api, context, 1, &source));
    if (node->form == TILED) TRY(acwface_read_input(api, context, 2, &weight));
    TRY(acwface_read_input(api, context, node->form == TILED ? 3 : 2, &bias));

    if (predicted.rank != 4) return acwface_fail(api, "acwface: predicted must have four axes");
    const int first_side = node->predicted_nhwc ? 1 : 2;
    const int64_t images = predicted.shape[0], height = predicted.shape[first_side], width = predicted.shape[first_side + 1];
    const int64_t predicted_channels = predicted.shape[node->predicted_nhwc ? 3 : 1], pixels = height * width;
    if (predicted_channels < node->predicted_start + ACWFACE_PREDICTED) return acwface_fail(api, "acwface: predicted has too few channels");
    if (pixels > INT32_MAX / 16) return acwface_fail(api, "acwface: the image is too large");
    const int64_t from_channels = source_channels(&source, images, height, width);
    if (from_channels < 0)
        return acwface_fail(api, "acwface: the second input must be (N, H * W, channels) or (N, H, W, channels), as predicted has them");
    if (node->form == TILED && (weight.rank != 3 || weight.shape[0] != ACWFACE_TAPS || weight.shape[2] != node->channels))
        return acwface_fail(api, "acwface: weight must be (9, C, channels)");
    const int64_t needed = node->form == TILED ? weight.shape[1] : ACWFACE_TAPS * node->channels;
    if (from_channels < node->source_start + needed) return acwface_fail(api, "acwface: the second input has too few channels");
    if (bias.rank != 1 || bias.shape[0] != node->channels) return acwface_fail(api, "acwface: bias must be (channels)");

    void* out = NULL;
    const int64_t nchw[4] = {images, node->channels, height, width}, nhwc[4] = {images, height, width, node->channels};
    TRY(acwface_make_output(api, context, node->out_nhwc ? nhwc : nchw, &out));
    if (images * pixels == 0) return NULL;

    const AcwfaceDeform layer = {
        .height = (int32_t)height,
        .width = (int32_t)width,
        .channels = (int32_t)node->channels,
        .predicted = (const float*)predicted.data + node->predicted_start * (node->predicted_nhwc ? 1 : pixels),
        .predicted_pixel = node->predicted_nhwc ? predicted_channels : 1,
        .predicted_channel = node->predicted_nhwc ? 1 : pixels,
        .bias = bias.data,
        .out = out,
        .out_pixel = node->out_nhwc ? node->channels : 1,
        .out_channel = node->out_nhwc ? 1 : pixels,
        .offset_limit = node->offset_limit,
        .negative_slope = node->negative_slope,
    };
    const float* begin = (const float*)source.data + node->source_start;
    Call call = {
        .kernel = acwface_kernel(0),
        .form = node->form,
        .sample = {layer, begin, from_channels},
        .tiled = {layer, (int32_t)weight.shape[1], begin, from_channels, weight.data},
        .predicted_image = predicted_channels * pixels,
        .source_image = from_channels * pixels,
        .out_image = node->channels * pixels,
        .pixels = (int32_t)pixels,
        .chunks = (size_t)((pixels + ACWFACE_CHUNK - 1) / ACWFACE_CHUNK),
    };
    return api->KernelContext_ParallelFor(context, run_chunk, (size_t)images * call.chunks, 0, &call);
}

// An attribute that may be absent.
static void infer_int(const OrtApi* api, OrtShapeInferContext* context, const char* name, int64_t* value) {
    const OrtOpAttr* attribute = NULL;
    size_t length = 0;
    OrtStatus* status = api->ShapeInferContext_GetAttribute(context, name, &attribute);
    if (status == NULL && attribute != NULL) status = api->ReadOpAttr(attribute, ORT_OP_ATTR_INT, value, sizeof(*value), &length);
    if (status != NULL) api->ReleaseStatus(status);
}

static OrtStatusPtr ORT_API_CALL infer(const OrtCustomOp* op, OrtShapeInferContext* context) {
    (void)op;
    const OrtApi* api = acwface_shape_api;
    int64_t channels = 0, predicted_nhwc = 0, out_nhwc = 0, in[4], out[4];
    const char *in_names[4], *out_names[4];
    size_t rank = 0;
    infer_int(api, context, "channels", &channels);
    infer_int(api, context, "predicted_channels_last", &predicted_nhwc);
    infer_int(api, context, "output_channels_last", &out_nhwc);
    TRY(acwface_input_shape(api, context, 0, 4, &rank, in, in_names));
    if (rank == 0) return NULL;  // the call itself will say so
    for (int axis = 0; axis < 3; axis++) {  // N, H, W
        const int from = axis == 0 ? 0 : axis + (predicted_nhwc ? 0 : 1), to = axis == 0 ? 0 : axis + (out_nhwc ? 0 : 1);
        out[to] = in[from];
        out_names[to] = in_names[from];
    }
    out[out_nhwc ? 3 : 1] = channels;
    out_names[out_nhwc ? 3 : 1] = "";
    return acwface_infer_output(api, context, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, out, out_names);
}

static const char* ORT_API_CALL sample_name(const OrtCustomOp* op) { return (void)op, "DeformSample"; }
static const char* ORT_API_CALL tiled_name(const OrtCustomOp* op) { return (void)op, "DeformConvTiled"; }

const OrtCustomOp acwface_ort_sample =
    ACWFACE_OPERATOR(sample_name, acwface_three, acwface_float32, acwface_float32, create_sample, destroy, compute, infer);
const OrtCustomOp acwface_ort_tiled =
    ACWFACE_OPERATOR(tiled_name, acwface_four, acwface_float32, acwface_float32, create_tiled, destroy, compute, infer);
