// A signature, not the library: written by hand to compile against where the library cannot be had. See ../README.md.
package androidx.camera.core;

import androidx.annotation.NonNull;
import androidx.annotation.Nullable;

public abstract class CameraState {
    public static final int ERROR_MAX_CAMERAS_IN_USE = 1;
    public static final int ERROR_CAMERA_IN_USE = 2;
    public static final int ERROR_CAMERA_DISABLED = 5;
    public static final int ERROR_DO_NOT_DISTURB_MODE_ENABLED = 7;

    @Nullable
    public abstract StateError getError();

    @NonNull
    public abstract Type getType();

    public enum Type {
        CLOSED,
        CLOSING,
        OPEN,
        OPENING,
        PENDING_OPEN
    }

    public abstract static class StateError {
        public abstract int getCode();
    }
}
