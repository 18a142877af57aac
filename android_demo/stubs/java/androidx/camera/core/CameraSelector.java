// A signature, not the library: written by hand to compile against where the library cannot be had. See ../README.md.
package androidx.camera.core;

import androidx.annotation.NonNull;

public final class CameraSelector {
    @NonNull public static final CameraSelector DEFAULT_FRONT_CAMERA = new CameraSelector();
    @NonNull public static final CameraSelector DEFAULT_BACK_CAMERA = new CameraSelector();

    private CameraSelector() {}
}
