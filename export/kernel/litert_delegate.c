// The operators for LiteRT (TensorFlow Lite), as an external delegate: a library that load_delegate, or the option
// --external_delegate_path, loads. It claims every CUSTOM node named DeformSample, DeformConvTiled or Conv3x3 and leaves all others
// alone. Plain C against LiteRT's C structures, nothing to link with, so one file serves every build of the runtime. README.md defines
// the operators and the layout of their custom_options.
//
// LiteRT gives delegates no threads of its own to use, so a node runs in the thread that invokes the graph.

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/lite/core/c/common.h"

#include "deform.h"

enum { OPTIONS_VERSION = 1, OPTIONS_BYTES = 24 };

typedef enum { SAMPLE, TILED, CONV3X3, FORMS } Form;

static const char* const NAMES[FORMS] = {"DeformSample", "DeformConvTiled", "Conv3x3"};
static const char* const CLAIMED_NAMES[FORMS] = {"AcwfaceDeformSample", "AcwfaceDeformConvTiled", "AcwfaceConv3x3"};  // in profiles

// One node of the graph, with the indices of its tensors: a delegate's node lists them in no order and once each.
typedef struct {
    Form form;
    int32_t predicted_start, source_start, channels;
    float offset_limit, negative_slope;
    int predicted, source, weight, bias, out;  // -1: the form has none
    float* prepared;                           // Conv3x3's weights
} Node;

static int form_of(const TfLiteRegistration* registration, Form* form) {
    for (int i = 0; i < FORMS; i++)
        if (registration->custom_name != NULL && strcmp(registration->custom_name, NAMES[i]) == 0) {
            *form = (Form)i;
            return 1;
        }
    return 0;
}

static int32_t word(const unsigned char* bytes, int index) {
    bytes += 4 * index;
    const uint32_t value = bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
    int32_t result;
    memcpy(&result, &value, sizeof(result));
    return result;
}

static float real(const unsigned char* bytes, int index) {
    const int32_t value = word(bytes, index);
    float result;
    memcpy(&result, &value, sizeof(result));
    return result;
}

static TfLiteStatus fail(TfLiteContext* context, const char* message) {
    context->ReportError(context, "acwface: %s", message);
    return kTfLiteError;
}

static TfLiteStatus read_node(TfLiteContext* context, int index, Node* node) {
    TfLiteNode* source = NULL;
    TfLiteRegistration* registration = NULL;
    if (context->GetNodeAndRegistration(context, index, &source, &registration) != kTfLiteOk) return kTfLiteError;
    if (!form_of(registration, &node->form)) return fail(context, "not a node of ours");
    const unsigned char* options = source->custom_initial_data;
    if (options == NULL || source->custom_initial_data_size != OPTIONS_BYTES || word(options, 0) != OPTIONS_VERSION)
        return fail(context, "custom_options are not of layout version 1");
    node->predicted_start = word(options, 1);
    node->source_start = word(options, 2);
    node->channels = word(options, 3);
    node->offset_limit = real(options, 4);
    node->negative_slope = real(options, 5);
    if (node->predicted_start < 0 || node->source_start < 0 || node->channels < 1 || !(node->offset_limit >= 0.0f))
        return fail(context, "custom_options are out of range");
    if (node->offset_limit == 0.0f) node->offset_limit = INFINITY;
    const int inputs = node->form == TILED ? 4 : 3;
    if (source->inputs->size != inputs || source->outputs->size != 1) return fail(context, "wrong number of tensors");
    for (int i = 0; i < inputs; i++)  // a file may leave an input out, as kTfLiteOptionalTensor
        if (source->inputs->data[i] < 0) return fail(context, "an input is left out");
    if (source->outputs->data[0] < 0) return fail(context, "the output is left out");
    const int* tensor = source->inputs->data;
    node->predicted = node->form == CONV3X3 ? -1 : *tensor++;
    node->source = *tensor++;
    node->weight = node->form == SAMPLE ? -1 : *tensor++;
    node->bias = *tensor;
    node->out = source->outputs->data[0];
    return kTfLiteOk;
}

// --- the delegate's own nodes ---

// Each of our nodes is claimed alone, so `nodes_to_replace` holds one.
static void* init(TfLiteContext* context, const char* buffer, size_t length) {
    (void)length;
    Node* node = calloc(1, sizeof(Node));
    if (node != NULL && read_node(context, ((const TfLiteDelegateParams*)buffer)->nodes_to_replace->data[0], node) != kTfLiteOk) {
        free(node);
        node = NULL;
    }
    return node;
}

static void release(TfLiteContext* context, void* data) {
    (void)context;
    if (data != NULL) free(((Node*)data)->prepared);
    free(data);
}

static int is_float(const TfLiteTensor* tensor, int rank) { return tensor->type == kTfLiteFloat32 && tensor->dims->size == rank; }

static TfLiteStatus prepare_weights(TfLiteContext* context, Node* node, const TfLiteTensor* weight, const TfLiteTensor* bias) {
    if (weight->allocation_type != kTfLiteMmapRo || bias->allocation_type != kTfLiteMmapRo)
        return fail(context, "weight and bias of Conv3x3 must be constants");
    const int32_t inputs = weight->dims->data[1];
    free(node->prepared);
    node->prepared = malloc(acwface_conv3x3_floats(inputs, node->channels) * sizeof(float));
    if (node->prepared == NULL) return fail(context, "out of memory");
    acwface_conv3x3_prepare(inputs, node->channels, weight->data.f, bias->data.f, node->prepared);
    return kTfLiteOk;
}

static TfLiteStatus prepare(TfLiteContext* context, TfLiteNode* own) {
    Node* node = own->user_data;
    if (node == NULL) return kTfLiteError;  // init has said why
    const TfLiteTensor *source = &context->tensors[node->source], *bias = &context->tensors[node->bias];
    if (context->tensors[node->out].type != kTfLiteFloat32) return fail(context, "the output must be float32");
    if (context->tensors[node->out].allocation_type == kTfLiteMmapRo) return fail(context, "the output is a constant");
    if (!is_float(source, 4) || !is_float(bias, 1)) return fail(context, "float32 tensors are needed, the input of rank 4, bias of rank 1");
    const int* shape = source->dims->data;
    if ((int64_t)shape[1] * shape[2] > INT32_MAX / 16) return fail(context, "the image is too large");
    if (bias->dims->data[0] != node->channels) return fail(context, "bias must be (channels)");
    int64_t needed = ACWFACE_TAPS * (int64_t)node->channels;
    if (node->form != SAMPLE) {
        const TfLiteTensor* weight = &context->tensors[node->weight];
        if (!is_float(weight, 3) || weight->dims->data[0] != ACWFACE_TAPS || weight->dims->data[2] != node->channels)
            return fail(context, "weight must be (9, C, channels)");
        needed = weight->dims->data[1];
        if (node->form == CONV3X3 && prepare_weights(context, node, weight, bias) != kTfLiteOk) return kTfLiteError;
    }
    if (shape[3] < node->source_start + needed) return fail(context, "the input has too few channels");
    if (node->form != CONV3X3) {
        const TfLiteTensor* predicted = &context->tensors[node->predicted];
        if (!is_float(predicted, 4) || memcmp(predicted->dims->data, shape, 3 * sizeof(int)) != 0)
            return fail(context, "predicted must be float32, (N, H, W, P), with the N, H and W of the input");
        if (predicted->dims->data[3] < (int64_t)node->predicted_start + ACWFACE_PREDICTED)
            return fail(context, "predicted has too few channels");
    }
    TfLiteIntArray* dims = malloc(sizeof(TfLiteIntArray) + 4 * sizeof(int));
    if (dims == NULL) return fail(context, "out of memory");
    dims->size = 4;
    memcpy(dims->data, shape, 3 * sizeof(int));
    dims->data[3] = node->channels;
    return context->ResizeTensor(context, &context->tensors[node->out], dims);  // the array is LiteRT's from here on
}

static AcwfaceDeform deform_layer(const TfLiteContext* context, const Node* node, int image) {
    const TfLiteTensor* predicted = &context->tensors[node->predicted];
    const int* shape = predicted->dims->data;
    const ptrdiff_t before = (ptrdiff_t)image * shape[1] * shape[2];
    return (AcwfaceDeform){
        .height = shape[1],
        .width = shape[2],
        .channels = node->channels,
        .predicted = predicted->data.f + before * shape[3] + node->predicted_start,
        .predicted_pixel = shape[3],
        .predicted_channel = 1,
        .bias = context->tensors[node->bias].data.f,
        .out = context->tensors[node->out].data.f + before * node->channels,
        .out_pixel = node->channels,
        .out_channel = 1,
        .offset_limit = node->offset_limit,
        .negative_slope = node->negative_slope,
    };
}

static TfLiteStatus invoke(TfLiteContext* context, TfLiteNode* own) {
    const Node* node = own->user_data;
    const AcwfaceKernel* kernel = acwface_kernel(0);
    const TfLiteTensor* source = &context->tensors[node->source];
    const int *shape = source->dims->data, height = shape[1], width = shape[2], step = shape[3];
    const int32_t pixels = height * width;
    for (int n = 0; n < shape[0]; n++) {
        const float* from = source->data.f + (ptrdiff_t)n * pixels * step + node->source_start;
        if (node->form == SAMPLE) {
            const AcwfaceDeformSample op = {deform_layer(context, node, n), from, step};
            kernel->sample(&op, 0, pixels);
        } else if (node->form == TILED) {
            const TfLiteTensor* weight = &context->tensors[node->weight];
            const AcwfaceDeformTiled op = {deform_layer(context, node, n), weight->dims->data[1], from, step, weight->data.f};
            kernel->tiled(&op, 0, pixels);
        } else {
            const int inputs = context->tensors[node->weight].dims->data[1];
            float* out = context->tensors[node->out].data.f + (ptrdiff_t)n * pixels * node->channels;
            const AcwfaceConv3x3 op = {height, width, inputs, node->channels, from, step, node->prepared, out, node->channels};
            kernel->conv3x3(&op, 0, acwface_conv3x3_tiles(height, width));
        }
    }
    return kTfLiteOk;
}

// --- the delegate ---

// LiteRT takes a file's word for it that each tensor is computed once, and before it is needed. Where that is not so, claiming ends the
// process, or our nodes write beyond their memory: a later node has given the tensor another shape, or it has none.
static TfLiteStatus check_order(TfLiteContext* context, const TfLiteIntArray* plan) {
    char* computed = calloc(context->tensors_size + 1, 1);
    if (computed == NULL) return fail(context, "out of memory");
    TfLiteStatus status = kTfLiteOk;
    for (int i = plan->size - 1; i >= 0 && status == kTfLiteOk; i--) {  // from the end: what is computed here or later
        TfLiteNode* node = NULL;
        TfLiteRegistration* registration = NULL;
        status = context->GetNodeAndRegistration(context, plan->data[i], &node, &registration);
        if (status != kTfLiteOk) break;
        for (int j = 0; j < node->outputs->size && status == kTfLiteOk; j++) {
            const int tensor = node->outputs->data[j];
            if (tensor >= 0 && computed[tensor]++) status = fail(context, "a tensor is computed twice");
        }
        for (int j = 0; j < node->inputs->size && status == kTfLiteOk; j++) {
            const int tensor = node->inputs->data[j];
            if (tensor >= 0 && computed[tensor]) status = fail(context, "a tensor is needed before it is computed");
        }
    }
    free(computed);
    return status;
}

// LiteRT hands the delegate a graph: claim our nodes in it, one by one. Claimed together, neighbours would become one node, and LiteRT
// gives no memory to the tensors inside it.
static TfLiteStatus claim(TfLiteContext* context, TfLiteDelegate* delegate) {
    TfLiteIntArray* plan = NULL;
    if (context->GetExecutionPlan(context, &plan) != kTfLiteOk) return kTfLiteError;
    if (check_order(context, plan) != kTfLiteOk) return kTfLiteError;
    const int count = plan->size;
    int* indices = malloc(((size_t)count + 1) * sizeof(int));  // a copy: the plan changes with every claim
    TfLiteIntArray* claimed = malloc(sizeof(TfLiteIntArray) + sizeof(int));
    TfLiteStatus status = indices == NULL || claimed == NULL ? fail(context, "out of memory") : kTfLiteOk;
    if (status == kTfLiteOk) memcpy(indices, plan->data, (size_t)count * sizeof(int));
    for (int i = 0; i < count && status == kTfLiteOk; i++) {
        TfLiteNode* node = NULL;
        TfLiteRegistration* registration = NULL;
        Form form;
        status = context->GetNodeAndRegistration(context, indices[i], &node, &registration);
        if (status != kTfLiteOk || !form_of(registration, &form)) continue;
        const TfLiteRegistration ours = {
            .init = init,
            .free = release,
            .prepare = prepare,
            .invoke = invoke,
            .custom_name = CLAIMED_NAMES[form],
            .version = 1,
        };
        claimed->size = 1;
        claimed->data[0] = indices[i];
        status = context->ReplaceNodeSubsetsWithDelegateKernels(context, ours, claimed, delegate);
    }
    free(indices);
    free(claimed);
    return status;
}

// The two functions by which LiteRT makes and ends an external delegate. There are no options.
ACWFACE_API TfLiteDelegate* tflite_plugin_create_delegate(char** keys, char** values, size_t count, void (*report_error)(const char*)) {
    (void)keys, (void)values;
    if (count != 0) {
        if (report_error != NULL) report_error("acwface: the delegate has no options");
        return NULL;
    }
    TfLiteDelegate* delegate = calloc(1, sizeof(TfLiteDelegate));
    if (delegate == NULL) return NULL;
    delegate->Prepare = claim;
    // Without this flag LiteRT leaves graphs with tensors of unknown size alone.
    delegate->flags = kTfLiteDelegateFlagsAllowDynamicTensors;
    return delegate;
}

ACWFACE_API void tflite_plugin_destroy_delegate(TfLiteDelegate* delegate) { free(delegate); }
