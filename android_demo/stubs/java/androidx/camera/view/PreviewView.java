// A signature, not the library: written by hand to compile against where the library cannot be had. See ../README.md.
package androidx.camera.view;

import android.content.Context;
import android.util.AttributeSet;
import android.widget.FrameLayout;
import androidx.annotation.NonNull;
import androidx.annotation.Nullable;
import androidx.camera.core.Preview;

public final class PreviewView extends FrameLayout {
    public PreviewView(@NonNull Context context) {
        super(context);
    }

    public PreviewView(@NonNull Context context, @Nullable AttributeSet attrs) {
        super(context, attrs);
    }

    @NonNull
    public Preview.SurfaceProvider getSurfaceProvider() {
        throw new UnsupportedOperationException();
    }

    @NonNull
    public ScaleType getScaleType() {
        throw new UnsupportedOperationException();
    }

    public void setScaleType(@NonNull ScaleType scaleType) {
        throw new UnsupportedOperationException();
    }

    public enum ScaleType {
        FILL_START,
        FILL_CENTER,
        FILL_END,
        FIT_START,
        FIT_CENTER,
        FIT_END
    }
}
